//! `godwit receive`: waits for one VM, and is its VMM from then on.

use godwit_api::{VmName, VmState};
use godwit_migrate::engine::Receiver;

use super::address::engine_address;
use super::exit::Exit;
use super::process::{Beginning, Process, StartError, say, start_failed};
use super::succession::Predecessor;
use super::target::Arriving;
use super::vm::{Event, Origin};
use crate::cli::ReceiveConfig;

/// Below every guest's: a receiver owns nothing yet.
const NO_EPOCH: u64 = 0;

/// Waits for a VM and runs it until it is over.
pub(crate) fn receive(config: ReceiveConfig) -> Exit {
    match start(config) {
        Ok(process) => process.serve().exit,
        Err(error) => start_failed(&error),
    }
}

fn start(config: ReceiveConfig) -> Result<Process, StartError> {
    let receiver = Receiver::bind(&engine_address(&config.listen))?;
    let origin = match &config.takes_over {
        Some(takes_over) => takes_over.origin,
        None => Origin::Arrived,
    };
    let predecessor = config.takes_over.map(|from| Predecessor::meet(&from.meeting, from.api)).transpose()?;
    let mut process = Process::begin(Beginning {
        name: config.name.clone(),
        fallback_name: |_| {
            let name = format!("incoming-{}", std::process::id());
            VmName::new(name).map_err(|_| unreachable!("a word and a number are a name"))
        },
        api: config.api,
        state: VmState::Incoming,
        epoch: NO_EPOCH,
        serial: config.serial,
        dirty_log: config.dirty_log,
        watched: false,
        predecessor,
    })?;
    let vm = process.vm.clone();
    let listen = receiver.address().to_string();
    vm.change(|status| {
        status.listen = Some(listen.clone());
        status.receiver = Some(receiver.remote());
        status.origin = origin;
        let id = receiver.id().to_string();
        status.registration.update(|file| file.receiver = Some(id))
    })?;
    let mut arriving = Arriving::new(&vm, config.name);
    let serving = std::thread::Builder::new().name("receiver".to_owned()).spawn(move || {
        let served = receiver.serve(&mut arriving);
        vm.change(|status| {
            status.listen = None;
            status.receiver = None;
        });
        let error = served.err().map(|e| e.to_string());
        let _ = vm.events.send(Event::ReceiverEnded { error });
    })?;
    process.receiver = Some(serving);
    say(&format!("waiting for a VM on {listen}"));
    Ok(process)
}
