//! Ctrl-C and its kin.

use msq_onnx::progress::Cancellation;

/// Ends the run at its next step when the process is asked to stop, so that nothing half-written stays behind; at once
/// when it is asked again.
pub(crate) fn cancellation() -> std::io::Result<Cancellation> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    use signal_hook::flag;
    let cancellation = Cancellation::default();
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 128 + signal, cancellation.flag())?;
        flag::register(signal, cancellation.flag())?;
    }
    // A file larger than the process may write is an error of the write then, not the end of the process.
    #[cfg(unix)]
    flag::register(signal_hook::consts::SIGXFSZ, std::sync::Arc::default())?;
    Ok(cancellation)
}
