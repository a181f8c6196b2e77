//! One declaration for a saved struct and its two conversions from and to the kernel's struct.

/// Declares a struct whose fields are those of a kernel struct, and both conversions.
///
/// Kernel fields that are not named (padding, reserved) are ignored one way and zero the other.
macro_rules! mirror {
    ($(#[$meta:meta])* $name:ident = $kernel:ty { $($(#[$fmeta:meta])* $field:ident : $ty:ty = $($kfield:ident).+),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub struct $name { $($(#[$fmeta])* pub $field: $ty),+ }

        impl From<&$kernel> for $name {
            fn from(kernel: &$kernel) -> Self {
                Self { $($field: mirror!(@get kernel, $($kfield).+)),+ }
            }
        }

        impl From<&$name> for $kernel {
            fn from(saved: &$name) -> Self {
                let mut kernel = <$kernel>::default();
                $( mirror!(@set kernel, saved.$field, $($kfield).+); )+
                kernel
            }
        }
    };
    (@get $kernel:ident, $($kfield:ident).+) => { (&$kernel.$($kfield).+).into_saved() };
    (@set $kernel:ident, $value:expr, $($kfield:ident).+) => {
        $kernel.$($kfield).+ = (&$value).into_kernel();
    };
}
pub(super) use mirror;

/// A kernel field as we save it.
pub(super) trait IntoSaved<T> {
    fn into_saved(self) -> T;
}

/// A saved field as the kernel wants it.
pub(super) trait IntoKernel<T> {
    fn into_kernel(self) -> T;
}

macro_rules! plain {
    ($($ty:ty),+) => { $(
        impl IntoSaved<$ty> for &$ty { fn into_saved(self) -> $ty { *self } }
        impl IntoKernel<$ty> for &$ty { fn into_kernel(self) -> $ty { *self } }
    )+ };
}

plain!(u8, u16, u32, u64, i64, [u64; 4]);
