//! The daemon's unix socket: made, served, and removed again.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use nix::sys::stat::{Mode, fchmod};
use tokio::{
    net::{UnixListener, UnixSocket, UnixStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::peer::Peer;

/// How many clients are served at once; others wait to be accepted.
const CONNECTIONS: usize = 32;
/// How many clients may wait to be accepted.
const BACKLOG: u32 = 128;
/// How long a client may take over its request's head.
const HEAD_PATIENCE: Duration = Duration::from_secs(5);
/// How long a request's head may be.
const HEAD_LIMIT: usize = 16 << 10;
/// After an accept failed (out of descriptors), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long answers under way have when the daemon stops.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// One daemon a host.
    #[error("a daemon already answers on {}: stop it first, or give this one its own --socket and --state-dir", .0.display())]
    InUse(PathBuf),
    /// Something that isn't ours to remove.
    #[error("{} is there and no socket: remove it, or choose another with --socket", .0.display())]
    NotASocket(PathBuf),
    /// The operating system refused.
    #[error("cannot make the socket {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The bound socket; its file goes when this goes.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of our file: another daemon's in its place stays.
    identity: (u64, u64),
}

impl Socket {
    /// Makes the socket, mode 0660, in the place of a dead daemon's if need be.
    ///
    /// # Errors
    /// A living daemon has it, something else is there, or the system refuses.
    pub async fn bind(path: &Path) -> Result<Self, BindError> {
        let failed = |source| BindError::Io {
            path: path.to_owned(),
            source,
        };
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(failed)?;
        }
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(BindError::NotASocket(path.to_owned()));
            }
            Ok(_) if is_answered(path).await => return Err(BindError::InUse(path.to_owned())),
            Ok(_) => fs::remove_file(path).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let listener = listen(path).map_err(failed)?;
        let made = fs::symlink_metadata(path).map_err(failed)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            identity: (made.dev(), made.ino()),
        })
    }

    /// Answers clients until `stop` is ready.
    pub async fn serve(self, router: Router, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let next = async {
                let slot = Arc::clone(&slots).acquire_owned().await;
                (slot, self.listener.accept().await)
            };
            let (slot, accepted) = tokio::select! {
                () = &mut stop => break,
                next = next => next,
            };
            // Those that are done.
            while connections.try_join_next().is_some() {}
            match accepted {
                Ok((stream, _)) => {
                    let router = router.clone().layer(Extension(Peer::of(&stream)));
                    let connection = converse(stream, router);
                    connections.spawn(async move {
                        connection.await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(socket = %self.path.display(), %error, "cannot accept a client");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        let last = async { while connections.join_next().await.is_some() {} };
        let _ = timeout(FAREWELL, last).await;
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let ours = |found: fs::Metadata| (found.dev(), found.ino()) == self.identity;
        if fs::symlink_metadata(&self.path).is_ok_and(ours) {
            // Left behind, it is replaced at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// One request, one answer.
async fn converse(stream: UnixStream, router: Router) {
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(HEAD_LIMIT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a client went away");
    }
}

/// A listening socket that nobody but its owner and its group could ever open.
fn listen(path: &Path) -> io::Result<UnixListener> {
    const MODE: u32 = 0o660;
    let socket = UnixSocket::new_stream()?;
    // The file inherits the descriptor's mode less the umask (Linux, unix_bind_bsd), so
    // that there is no moment with more; the umask itself is every thread's.
    fchmod(&socket, Mode::from_bits_truncate(MODE))?;
    socket.bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
    socket.listen(BACKLOG)
}

/// Whether a process listens there. Its queue full, or refused for lack of rights: one does.
async fn is_answered(path: &Path) -> bool {
    match UnixStream::connect(path).await {
        Ok(_) => true,
        Err(error) => error.kind() != io::ErrorKind::ConnectionRefused,
    }
}
