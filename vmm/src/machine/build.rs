//! Builds a machine: KVM's VM, RAM, interrupt controllers, devices, vCPUs; nothing runs yet.
//!
//! Order: the TSS and identity-map addresses before any vCPU (Intel's KVM needs them to make one), the
//! interrupt controllers before any vCPU (each then gets a local APIC), irqfds after the controllers.

use std::sync::{Arc, mpsc};

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, KVM_PIT_SPEAKER_DUMMY, kvm_pit_config};
use kvm_ioctls::Kvm;

use super::config::{IncomingMemory, MachineConfig, VCPUS_MAX};
use super::error::MachineError;
use super::states::{Machine, PausedMachine};
use crate::boot::{self, BootImage, Loaded};
use crate::devices::{COM1_IRQ, ConsoleSink, PortBus, SerialPort};
use crate::kvm::{self, Capabilities, DirtyLog, DirtyLogChoice, KvmError};
use crate::memory::{GuestRam, MEMORY_BYTES_MIN, RamLayout};
use crate::saved_state::{CpuidEntryV1, MachineDescriptionV1, OnResetV1};
use crate::vcpu::{self, NewVcpu, RunGate, Surroundings, VcpuHandle};

/// Where Intel's KVM keeps its TSS and identity map; see `boot::registers`.
const IDENTITY_MAP_ADDRESS: u64 = boot::KVM_PRIVATE_START;
const TSS_ADDRESS: usize = 0xfffb_d000;

impl PausedMachine {
    /// Builds a new machine and boots `image` in it; it stands at the kernel's entry.
    ///
    /// # Errors
    /// The host cannot run it, or the kernel is not one.
    pub fn boot(config: &MachineConfig, image: &BootImage<'_>) -> Result<Self, MachineError> {
        if !(1..=VCPUS_MAX).contains(&config.vcpus) {
            return Err(MachineError::Vcpus { vcpus: config.vcpus });
        }
        let layout = RamLayout::new(config.memory_bytes)?;
        let (kvm, capabilities) = kvm::open()?;
        let supported = supported_cpuid(&kvm)?;
        let cpuid = vcpu::for_machine(&supported, config.vcpus, capabilities.tsc_deadline_timer);
        let ram = Arc::new(GuestRam::allocate(layout.clone())?);
        // The kernel before the VM: a file that is not one costs nothing then.
        let loaded = boot::load(&ram, image)
            .map_err(|source| MachineError::Boot { kernel: config.kernel_name.clone(), source })?;
        let shape = Shape { vcpus: config.vcpus, cpuid: &cpuid, tsc_khz: None, entry: Some(loaded) };
        let built = build(&kvm, capabilities, ram, shape, config.dirty_log, Arc::clone(&config.console))?;
        let description = MachineDescriptionV1 {
            vcpus: config.vcpus,
            memory_bytes: layout.bytes(),
            ram: layout.ranges().to_vec(),
            cpuid,
            tsc_khz: built.tsc_khz,
            kernel: config.kernel_name.clone(),
            initrd: config.initrd_name.clone(),
            cmdline: config.cmdline.clone(),
            on_reset: config.on_reset,
        };
        Ok(built.into_paused(capabilities, description))
    }

    /// A machine with one vCPU and little memory that has nothing to run.
    pub(super) fn bare(console: Arc<dyn ConsoleSink>) -> Result<Self, MachineError> {
        let layout = RamLayout::new(MEMORY_BYTES_MIN)?;
        let (kvm, capabilities) = kvm::open()?;
        let cpuid = vcpu::for_machine(&supported_cpuid(&kvm)?, 1, capabilities.tsc_deadline_timer);
        let ram = Arc::new(GuestRam::allocate(layout.clone())?);
        let shape = Shape { vcpus: 1, cpuid: &cpuid, tsc_khz: None, entry: None };
        let built = build(&kvm, capabilities, ram, shape, DirtyLogChoice::Bitmap, console)?;
        let description = MachineDescriptionV1 {
            vcpus: 1,
            memory_bytes: layout.bytes(),
            ram: layout.ranges().to_vec(),
            cpuid,
            tsc_khz: built.tsc_khz,
            kernel: String::new(),
            initrd: None,
            cmdline: String::new(),
            on_reset: OnResetV1::Exit,
        };
        Ok(built.into_paused(capabilities, description))
    }

    /// Builds the machine that `description` describes, for state to be restored into. Memory that was
    /// handed over is not written.
    ///
    /// # Errors
    /// This host cannot run it; missing CPU features are named.
    pub fn empty(
        description: MachineDescriptionV1,
        memory: IncomingMemory,
        dirty_log: DirtyLogChoice,
        console: Arc<dyn ConsoleSink>,
    ) -> Result<Self, MachineError> {
        let layout = RamLayout::new(description.memory_bytes)?;
        let ram = Arc::new(match memory {
            IncomingMemory::Fresh => GuestRam::allocate(layout)?,
            IncomingMemory::HandedOver(fd) => GuestRam::adopt(layout, fd)?,
        });
        ram.map_existing()?;
        let (kvm, capabilities) = kvm::open()?;
        let supported = supported_cpuid(&kvm)?;
        vcpu::check_features(&description.cpuid, &supported)
            .map_err(|features| MachineError::CpuFeatures { features })?;
        let shape = Shape {
            vcpus: description.vcpus,
            cpuid: &description.cpuid,
            tsc_khz: Some(description.tsc_khz),
            entry: None,
        };
        let built = build(&kvm, capabilities, ram, shape, dirty_log, console)?;
        Ok(built.into_paused(capabilities, description))
    }
}

/// `IA32_TIME_STAMP_COUNTER`.
const MSR_TSC: u32 = 0x10;

struct Shape<'a> {
    vcpus: u32,
    cpuid: &'a [CpuidEntryV1],
    /// The guest's TSC frequency, or the host's own.
    tsc_khz: Option<u32>,
    /// Where a kernel was loaded, if one was.
    entry: Option<Loaded>,
}

struct Built {
    machine: Machine,
    tsc_khz: u32,
}

impl Built {
    fn into_paused(self, capabilities: Capabilities, description: MachineDescriptionV1) -> PausedMachine {
        PausedMachine::new(self.machine, capabilities, description)
    }
}

fn build(
    kvm: &Kvm,
    capabilities: Capabilities,
    ram: Arc<GuestRam>,
    shape: Shape<'_>,
    dirty_log: DirtyLogChoice,
    console: Arc<dyn ConsoleSink>,
) -> Result<Built, MachineError> {
    let wanted = shape.vcpus;
    if usize::try_from(wanted).is_ok_and(|wanted| wanted > capabilities.vcpus_max) {
        return Err(KvmError::TooManyVcpus { wanted, host_max: capabilities.vcpus_max }.into());
    }
    let vm = Arc::new(kvm.create_vm().map_err(KvmError::ioctl("KVM_CREATE_VM"))?);
    vm.set_identity_map_address(IDENTITY_MAP_ADDRESS)
        .map_err(KvmError::ioctl("KVM_SET_IDENTITY_MAP_ADDR"))?;
    vm.set_tss_address(TSS_ADDRESS).map_err(KvmError::ioctl("KVM_SET_TSS_ADDR"))?;
    let dirty_log = capabilities.dirty_log_of(dirty_log)?;
    let dirty_log = Arc::new(DirtyLog::new(Arc::clone(&vm), Arc::clone(&ram), dirty_log)?);
    vm.create_irq_chip().map_err(KvmError::ioctl("KVM_CREATE_IRQCHIP"))?;
    // The dummy speaker lets guests read port 0x61, by which they calibrate against the PIT.
    let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
    vm.create_pit2(pit).map_err(KvmError::ioctl("KVM_CREATE_PIT2"))?;
    let serial = Arc::new(SerialPort::new(console)?);
    vm.register_irqfd(serial.irq(), COM1_IRQ).map_err(KvmError::ioctl("KVM_IRQFD"))?;
    let bus = Arc::new(PortBus::new(Arc::clone(&serial)));

    let (events, ended) = mpsc::channel();
    let gate = Arc::new(RunGate::default());
    let msr_indices: Arc<[u32]> = msr_indices(kvm)?.into();
    let mut vcpus = Vec::new();
    let mut tsc_khz = 0;
    for index in 0..wanted {
        let new = NewVcpu::create(&vm, index, capabilities, Arc::clone(&msr_indices))?;
        new.set_cpuid(&vcpu::for_vcpu(shape.cpuid, index))?;
        tsc_khz = shape.tsc_khz.unwrap_or(new.host_tsc_khz());
        new.set_tsc_khz(tsc_khz)?;
        if let (0, Some(loaded)) = (index, shape.entry) {
            new.enter_at(loaded)?;
        }
        dirty_log.add_vcpu(new.fd())?;
        let surroundings = Surroundings {
            bus: Arc::clone(&bus),
            ram: Arc::clone(&ram),
            dirty_log: Arc::clone(&dirty_log),
            gate: Arc::clone(&gate),
        };
        vcpus.push(VcpuHandle::spawn(new, surroundings, events.clone())?);
    }
    let machine = Machine::new(vm, ram, dirty_log, serial, vcpus, gate, ended);
    Ok(Built { machine, tsc_khz })
}

fn supported_cpuid(kvm: &Kvm) -> Result<Vec<CpuidEntryV1>, KvmError> {
    let cpuid =
        kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(KvmError::ioctl("KVM_GET_SUPPORTED_CPUID"))?;
    Ok(cpuid.as_slice().iter().map(Into::into).collect())
}

fn msr_indices(kvm: &Kvm) -> Result<Vec<u32>, KvmError> {
    let list = kvm.get_msr_index_list().map_err(KvmError::ioctl("KVM_GET_MSR_INDEX_LIST"))?;
    // The TSC is saved apart: it runs on while it is read.
    Ok(list.as_slice().iter().copied().filter(|index| *index != MSR_TSC).collect())
}
