//! Temporary files, whose errors say that they are about one: the folder may be full, missing or read-only, and then no
//! data file is to blame.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};

/// A temporary file that is being written, in the system's folder for such files.
pub(super) struct Spool(BufWriter<File>);

/// What went wrong with a temporary file.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot write a temporary file in `{}`: {source}; the environment variable TMPDIR names another folder",
    std::env::temp_dir().display()
)]
struct SpoolError {
    source: io::Error,
}

impl Spool {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(BufWriter::with_capacity(1 << 18, tempfile::tempfile().map_err(named)?)))
    }

    /// The file, complete.
    pub(super) fn finish(self) -> io::Result<File> {
        self.0.into_inner().map_err(|error| named(error.into_error()))
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(named)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(named)
    }
}

/// An error that says that it is about a temporary file. Interruptions stay what they are, since they are tried again.
pub(super) fn named(source: io::Error) -> io::Error {
    if source.kind() == ErrorKind::Interrupted { source } else { io::Error::other(SpoolError { source }) }
}

/// Whether the error is one about a temporary file.
pub(super) fn is_of_spool(error: &io::Error) -> bool {
    error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<SpoolError>)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::error::{DataError, NpyError, Place};
    use crate::runtime::ErrorKind as Kind;

    #[test]
    fn errors_name_the_folder_and_not_the_data() {
        let full = || named(io::Error::from(ErrorKind::StorageFull));
        assert!(is_of_spool(&full()) && !is_of_spool(&io::Error::from(ErrorKind::StorageFull)));
        let error = DataError::npy(&Place::file("calib.npz"), NpyError::from(full()));
        let text = error.to_string();
        assert!(text.starts_with("cannot write a temporary file in `") && !text.contains("calib.npz"), "{text}");
        assert_eq!(error.kind(), Kind::Other);
        let broken =
            DataError::npy(&Place::file("calib.npz"), NpyError::from(io::Error::from(ErrorKind::UnexpectedEof)));
        assert!(broken.to_string().starts_with("`calib.npz`"), "{broken}");
        assert_eq!(broken.kind(), Kind::Data);
    }

    #[test]
    fn what_is_written_is_read() {
        use std::io::{Read, Seek};
        let mut spool = Spool::new().unwrap();
        spool.write_all(b"rows").unwrap();
        let (mut file, mut text) = (spool.finish().unwrap(), String::new());
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "rows");
    }
}
