//! Reads at given offsets of a shared file, from any thread.

use std::fs::File;
use std::io;

/// A file that is read at offsets, without a cursor shared by threads.
#[derive(Debug)]
pub(super) struct PositionalFile {
    #[cfg(unix)]
    file: File,
    #[cfg(not(unix))]
    file: portable::Seeking<File>,
}

impl PositionalFile {
    #[cfg(unix)]
    pub(super) fn new(file: File) -> Self {
        Self { file }
    }

    #[cfg(not(unix))]
    pub(super) fn new(file: File) -> Self {
        Self { file: portable::Seeking::new(file) }
    }

    /// Fills `buffer` from `offset` on; an error when the file ends before.
    pub(super) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        #[cfg(unix)]
        return std::os::unix::fs::FileExt::read_exact_at(&self.file, buffer, offset);
        #[cfg(not(unix))]
        return self.file.read_exact_at(buffer, offset);
    }
}

/// For systems without positional reads: one cursor behind a lock.
#[cfg(any(not(unix), test))]
mod portable {
    use std::io::{self, Read, Seek, SeekFrom};
    use std::sync::{Mutex, PoisonError};

    #[derive(Debug)]
    pub(super) struct Seeking<F> {
        file: Mutex<F>,
    }

    impl<F: Read + Seek> Seeking<F> {
        pub(super) fn new(file: F) -> Self {
            Self { file: Mutex::new(file) }
        }

        pub(super) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            // Every read seeks first, so a cursor left by a thread that panicked does no harm.
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            file.seek(SeekFrom::Start(offset))?;
            file.read_exact(buffer)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Cursor, Write};

    #[test]
    fn both_forms_read_at_offsets() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let native = PositionalFile::new(file);
        let portable = portable::Seeking::new(Cursor::new(b"0123456789".to_vec()));
        for offset in [7_u64, 0, 3] {
            let (mut a, mut b) = ([0; 3], [0; 3]);
            native.read_exact_at(&mut a, offset).unwrap();
            portable.read_exact_at(&mut b, offset).unwrap();
            assert_eq!(a, b);
            assert_eq!(a[0], b'0' + offset as u8);
        }
        assert!(native.read_exact_at(&mut [0; 3], 8).is_err());
        assert!(portable.read_exact_at(&mut [0; 3], 8).is_err());
    }
}
