//! Keys of devices, as they are stored.

use super::Result;

/// A key that an identifier's devices have.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceKey {
    /// Hash of the identifier.
    pub identifier: String,
    /// The instance that showed it; empty for a key that is pinned.
    pub instance: String,
    /// Base64.
    pub key: String,
    /// When it was pinned, or shown first.
    pub since: f64,
}

/// What a store does for keys of devices.
pub trait TrustStore {
    /// All of them.
    fn device_keys(&mut self) -> Result<Vec<DeviceKey>>;
    /// Replaces what is stored of an identifier, or of one of its instances; what has no identifier is left out.
    fn set_device_keys(
        &mut self,
        identifier: &str,
        instance: Option<&str>,
        keys: &[DeviceKey],
    ) -> Result<()>;
}
