//! Where a capture's bytes come from: a file or standard input, gzip'd or not.

use std::{
    fmt,
    fs::File,
    io::{self, Cursor, Read},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use flate2::read::MultiGzDecoder;

/// What gzip'd data begins with (RFC 1952 §2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Told how many bytes more were read, before they are unpacked.
pub type OnRead = Arc<dyn Fn(u64) + Send + Sync>;

/// Where a capture is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Standard input.
    Stdin,
    /// A file, or what else can be read by a path.
    File(PathBuf),
}

impl From<PathBuf> for Place {
    /// `-` is standard input.
    fn from(path: PathBuf) -> Self {
        match path.as_os_str() == "-" {
            true => Self::Stdin,
            false => Self::File(path),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdin => f.write_str("standard input"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl Place {
    /// The file's name alone.
    pub fn file_name(&self) -> String {
        match self {
            Self::Stdin => String::from("stdin"),
            Self::File(path) => path
                .file_name()
                .map_or_else(|| self.to_string(), |name| name.to_string_lossy().into()),
        }
    }

    /// How long it is, of a file that can be read twice; `None` of a pipe or device.
    pub fn length(&self) -> Option<u64> {
        let metadata = self.path()?.metadata().ok()?;
        metadata.is_file().then_some(metadata.len())
    }

    /// Without links, where there is anything.
    pub fn resolved(&self) -> Self {
        let resolved = self.path().and_then(|path| path.canonicalize().ok());
        resolved.map_or_else(|| self.clone(), Self::File)
    }

    fn path(&self) -> Option<&Path> {
        match self {
            Self::Stdin => None,
            Self::File(path) => Some(path),
        }
    }

    /// Opens it.
    pub(super) fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(match self {
            // By its descriptor: who may be asked something holds the lock of the other.
            Self::Stdin => Box::new(File::from(io::stdin().as_fd().try_clone_to_owned()?)),
            Self::File(path) => Box::new(File::open(path)?),
        })
    }
}

/// Why reading ended early, told apart from the reader that it is handed to.
pub(super) type Failure = Arc<Mutex<Option<io::Error>>>;

/// Takes the failure, if there was one.
pub(super) fn failed(failure: &Failure) -> Option<io::Error> {
    let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
    failure.take()
}

/// Unpacks what is gzip'd, and reads as much as fits each time.
///
/// # Errors
/// Its first bytes can't be read.
pub(super) fn unpacked(
    mut input: impl Read + Send + 'static,
    on_read: Option<OnRead>,
) -> io::Result<(Whole, Failure)> {
    let mut magic = Vec::new();
    input.by_ref().take(2).read_to_end(&mut magic)?;
    let zipped = magic == GZIP;
    let input = Counted {
        input: Cursor::new(magic).chain(input),
        on_read,
    };
    let input: Box<dyn Read + Send> = match zipped {
        // Its own buffer is small.
        true => Box::new(MultiGzDecoder::new(io::BufReader::with_capacity(
            1 << 16,
            input,
        ))),
        false => Box::new(input),
    };
    let failure = Failure::default();
    let whole = Whole {
        input,
        failure: Arc::clone(&failure),
    };
    Ok((whole, failure))
}

struct Counted<R> {
    input: R,
    on_read: Option<OnRead>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(bytes)?;
        if let Some(on_read) = &self.on_read {
            on_read(read as u64);
        }
        Ok(read)
    }
}

/// Fills what it is given but at the end: the reader of blocks takes what a first read
/// gives it for all that the header has, and a pipe gives little at a time. What fails is
/// kept, and is the end.
pub(super) struct Whole {
    input: Box<dyn Read + Send>,
    failure: Failure,
}

impl Read for Whole {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.input.read(&mut bytes[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
                    failure.get_or_insert(error);
                    break;
                }
            }
        }
        Ok(filled)
    }
}
