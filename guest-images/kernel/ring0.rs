//! What needs ring 0, called from ring 3.
//!
//! `int` and `syscall` are not available to ring 3 everywhere (a KVM that emulates ring 0 refuses
//! them), but an invalid instruction raises an exception on every machine: `ud2` at one known
//! address is the call, and the handler of that exception tells it from a real fault by the address.

use core::arch::global_asm;

use crate::tables::{USER_CODE, USER_DATA};

const PARK: u64 = 0;
const CRASH: u64 = 1;
const CPUID: u64 = 2;
const READ_MSR: u64 = 3;
const WRITE_MSR: u64 = 4;
const SLEEP: u64 = 5;

global_asm!(
    r#"
    .text
    // ring0_call(function: edi, a: rsi, b: rdx, result: rcx)
    .globl ring0_call
ring0_call:
    movq %rcx, %r8
ring0_call_ud2:
    ud2
    ret

    // One stub of 16 bytes for each exception; those without an error code push a 0.
    .balign 16
    .globl exception_stubs
exception_stubs:
    .set vector, 0
    .rept 32
    .balign 16
    .if !((0x60227d00 >> vector) & 1)
    pushq $0
    .endif
    pushq $vector
    jmp exception
    .set vector, vector + 1
    .endr

    // Stack: vector, error code, rip, cs, rflags, rsp, ss.
exception:
    cmpl $6, (%rsp)
    jne report
    cmpq $ring0_call_ud2, 16(%rsp)
    jne report
    addq $2, 16(%rsp)           // past the ud2
    cmpl ${CPUID}, %edi
    je do_cpuid
    cmpl ${READ_MSR}, %edi
    je do_read_msr
    cmpl ${WRITE_MSR}, %edi
    je do_write_msr
    cmpl ${SLEEP}, %edi
    je do_sleep
    cmpl ${CRASH}, %edi
    je do_crash
do_park:
    cli
    hlt
    jmp do_park

do_cpuid:
    movq %rbx, %r9
    movl %esi, %eax
    movl %edx, %ecx
    cpuid
    movl %eax, (%r8)
    movl %ebx, 4(%r8)
    movl %ecx, 8(%r8)
    movl %edx, 12(%r8)
    movq %r9, %rbx
    jmp back
do_read_msr:
    movl %esi, %ecx
    rdmsr
    movl %eax, (%r8)
    movl %edx, 4(%r8)
    jmp back
do_write_msr:
    movl %esi, %ecx
    movl %edx, %eax
    shrq $32, %rdx
    wrmsr
    jmp back
do_sleep:
    sti                         // takes effect after the hlt has begun: no wake-up is lost
    hlt
    cli
back:
    addq $16, %rsp
    iretq

do_crash:
    lidt no_idt
    ud2

    // Ring 0 does not report: it sends the vCPU to Rust in ring 3, on its own stack from the top,
    // which may overwrite what broke but nothing goes back there.
report:
    movq %cr2, %rax
    pushq %rax
    movq %rsp, %rdi             // argument: the frame
    movq %rsp, %rax
    subq $ring0_stacks, %rax
    shrq ${ring0_stack_shift}, %rax
    incq %rax
    shlq ${stack_shift}, %rax
    addq $stacks - 8, %rax      // as a call would leave it
    pushq ${USER_DATA}
    pushq %rax
    pushq $0x3002               // as at the entry: ports are open to ring 3
    pushq ${USER_CODE}
    pushq $exception_main
    iretq

    .globl timer_interrupt
timer_interrupt:
    pushq %rax
    movl $0xfee000b0, %eax      // end of interrupt; as a displacement it would be sign-extended
    movl $0, (%rax)
    popq %rax
    .globl spurious_interrupt
spurious_interrupt:
    iretq

    .section .data.tables, "aw"
no_idt:
    .word 0
    .quad 0
    .text
    "#,
    CPUID = const CPUID,
    READ_MSR = const READ_MSR,
    WRITE_MSR = const WRITE_MSR,
    SLEEP = const SLEEP,
    CRASH = const CRASH,
    USER_CODE = const USER_CODE,
    USER_DATA = const USER_DATA,
    stack_shift = const crate::entry::STACK_BYTES.trailing_zeros(),
    ring0_stack_shift = const crate::entry::RING0_STACK_BYTES.trailing_zeros(),
    options(att_syntax),
);

unsafe extern "C" {
    fn ring0_call(function: u64, a: u64, b: u64, result: *mut u32);
}

/// Halts this vCPU for good; it uses no host CPU from here on.
pub fn park() -> ! {
    // SAFETY: does not come back.
    unsafe { ring0_call(PARK, 0, 0, core::ptr::null_mut()) };
    unreachable!("a parked vCPU went on")
}

/// Ends the guest by a triple fault.
pub fn crash() -> ! {
    // SAFETY: does not come back.
    unsafe { ring0_call(CRASH, 0, 0, core::ptr::null_mut()) };
    unreachable!("the guest survived a triple fault")
}

/// EAX, EBX, ECX and EDX of a CPUID leaf. Asked in ring 0, because ring 3 may see the host's CPU
/// where KVM emulates ring 0.
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let mut result = [0; 4];
    // SAFETY: writes four words to the result, which has four.
    unsafe { ring0_call(CPUID, leaf.into(), subleaf.into(), result.as_mut_ptr()) };
    result
}

/// Reads a model-specific register, which must exist.
pub fn read_msr(register: u32) -> u64 {
    let mut result = [0; 2];
    // SAFETY: writes two words to the result, which has two.
    unsafe { ring0_call(READ_MSR, register.into(), 0, result.as_mut_ptr()) };
    u64::from(result[1]) << 32 | u64::from(result[0])
}

/// Writes a model-specific register.
///
/// # Safety
/// The register must exist, and the value must not change how this code runs or hand memory to the
/// hypervisor that is used otherwise.
pub unsafe fn write_msr(register: u32, value: u64) {
    // SAFETY: the caller answers for the value.
    unsafe { ring0_call(WRITE_MSR, register.into(), value, core::ptr::null_mut()) };
}

/// Halts until the next interrupt. Without one due, that is for good.
pub fn sleep() {
    // SAFETY: only the timer's interrupt can come, and its handler keeps all registers.
    unsafe { ring0_call(SLEEP, 0, 0, core::ptr::null_mut()) };
}
