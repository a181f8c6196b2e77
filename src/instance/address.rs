//! The API's addresses as the migration engine's.

use godwit_api::TargetAddress;
use godwit_migrate::transport::Address;

/// The same address for the engine.
pub(super) fn engine_address(address: &TargetAddress) -> Address {
    match address {
        TargetAddress::Tcp { host, port } if host.contains(':') => Address::Tcp(format!("[{host}]:{port}")),
        TargetAddress::Tcp { host, port } => Address::Tcp(format!("{host}:{port}")),
        TargetAddress::Unix { path } => {
            Address::Unix(std::path::absolute(path).unwrap_or_else(|_| path.clone()))
        }
    }
}
