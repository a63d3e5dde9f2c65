//! Opens what is configured or found to be read, and is a file. Others may write there:
//! opening a pipe waits for whoever writes into it, opening a device may do something, and
//! neither ever ends.

use std::{
    fs::{self, File, FileType, OpenOptions},
    io,
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::Path,
};

/// Opens the file at `path`, to which links may lead, for reading. Never waits for another
/// process.
///
/// # Errors
/// The file system refused, or what is there is no regular file.
pub fn open(path: &Path) -> io::Result<File> {
    refuse_others(fs::metadata(path)?.file_type())?;
    // Something else may stand there by now.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    refuse_others(file.metadata()?.file_type())?;
    Ok(file)
}

fn refuse_others(kind: FileType) -> io::Result<()> {
    let name = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    let why = format!("it is {name}, and only a regular file is read");
    Err(io::Error::new(io::ErrorKind::InvalidInput, why))
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read,
        os::unix::{fs::symlink, net::UnixListener},
    };

    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;

    #[test]
    fn a_file_is_opened_and_nothing_else_that_stands_under_its_name() {
        let base = tempfile::tempdir().expect("a directory");
        let at = |name: &str| base.path().join(name);
        fs::write(at("file"), "content").expect("written");
        symlink(at("file"), at("link")).expect("linked");
        for name in ["file", "link"] {
            let mut text = String::new();
            let mut file = open(&at(name)).expect("opened");
            file.read_to_string(&mut text).expect("read");
            assert_eq!(text, "content");
        }
        mkfifo(&at("pipe"), Mode::S_IRWXU).expect("a pipe");
        let _socket = UnixListener::bind(at("socket")).expect("a socket");
        symlink("/dev/zero", at("device")).expect("linked");
        symlink(at("pipe"), at("linked pipe")).expect("linked");
        for (name, kind) in [
            ("pipe", "a pipe"),
            ("linked pipe", "a pipe"),
            ("socket", "a socket"),
            ("device", "a device"),
            (".", "a directory"),
        ] {
            let error = open(&at(name)).expect_err(name).to_string();
            assert!(error.starts_with(&format!("it is {kind},")), "{error}");
        }
        let missing = open(&at("missing")).expect_err("nothing there");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
