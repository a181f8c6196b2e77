//! The demo: to come next.

pub(crate) fn demo(_: crate::cli::DemoConfig) -> crate::instance::Exit {
    crate::instance::Exit::StartFailed
}
