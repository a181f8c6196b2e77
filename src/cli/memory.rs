//! `godwit memory`: guest-physical memory, as it is.

use std::process::ExitCode;

use godwit_api::{GuestRange, VmName};

use super::args::{MemoryArgs, VmAddress};
use super::failure::Failure;
use super::output;
use super::units::Size;

pub(crate) fn memory(args: MemoryArgs) -> Result<ExitCode, Failure> {
    let (vm, range) = request(args).map_err(|why| Failure::usage(format!("wrong usage: {why}")))?;
    let bytes = vm.client()?.memory(range).map_err(Failure::failed)?;
    output::bytes(&bytes)?;
    Ok(ExitCode::SUCCESS)
}

fn request(args: MemoryArgs) -> Result<(VmAddress, GuestRange), String> {
    let (name, address, length) = match (args.vm_and_range.as_slice(), &args.api) {
        ([name, address, length], None) => {
            (Some(name.parse::<VmName>().map_err(|error| error.to_string())?), address, length)
        }
        ([address, length], Some(_)) => (None, address, length),
        ([_, _], None) => {
            return Err(
                "the VM, the address or the length is missing; write `godwit memory NAME ADDRESS LENGTH`, \
                        or --api SOCKET for NAME"
                    .into(),
            );
        }
        _ => return Err("both NAME and --api are given; leave one of them out".into()),
    };
    // A length may also be written as sizes are everywhere else.
    let length = length.parse::<Size>().map_or_else(|_| length.clone(), |Size(bytes)| bytes.to_string());
    let range = GuestRange::parse(address, &length).map_err(|error| error.to_string())?;
    Ok((VmAddress { name, api: args.api }, range))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(words: &[&str], api: Option<&str>) -> Result<(VmAddress, GuestRange), String> {
        let vm_and_range = words.iter().map(ToString::to_string).collect();
        request(MemoryArgs { vm_and_range, api: api.map(Into::into) })
    }

    #[test]
    fn both_ways_to_say_which_vm() {
        let range = GuestRange::new(1 << 20, 4096).expect("a range");
        let (vm, found) = asked(&["web", "0x100000", "4K"], None).expect("by name");
        assert_eq!((vm.name.map(|name| name.to_string()), found), (Some("web".to_owned()), range));
        let (vm, found) = asked(&["1048576", "0x1000"], Some("/x")).expect("by socket");
        assert_eq!((vm.api, found), (Some("/x".into()), range));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (words, api, part) in [
            (&["0x1000", "1"][..], None, "missing"),
            (&["web", "0x1000", "1"], Some("/x"), "both NAME and --api"),
            (&["web", "start", "1"], None, "address"),
            (&["web", "0x1000", "17M"], None, "in pieces"),
            (&["web", "0x1000", "0"], None, "length"),
            (&["../web", "0x1000", "1"], None, "letter"),
        ] {
            let why = asked(words, api).expect_err(part);
            assert!(why.contains(part), "{why}");
        }
    }
}
