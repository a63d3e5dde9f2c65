//! Who is at the other end of the unix socket, by the kernel's word (`SO_PEERCRED`,
//! unix(7)).

use nix::unistd::{Uid, User};
use tokio::{net::UnixStream, task::spawn_blocking};

use crate::report::{abridged, clean};

/// How much of what a client says of itself is kept, in columns.
const TOLD: usize = 64;

/// The user that a client ran as when it connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(Option<Uid>);

impl Peer {
    /// Of a connection. Nobody, if the kernel doesn't say.
    pub fn of(stream: &UnixStream) -> Self {
        let credentials = stream.peer_cred();
        Self(credentials.ok().map(|peer| Uid::from_raw(peer.uid())))
    }

    /// In words, for the journal: the user, and after it, not proven, whom the client says
    /// it asks for: `root (says ada)`.
    pub async fn name(self, told: Option<String>) -> Option<String> {
        // Where names are may be a server far away.
        let proven = spawn_blocking(move || self.user()).await.ok().flatten();
        let told = told.map(|told| abridged(&clean(&told), TOLD));
        match (proven, told.filter(|told| !told.is_empty())) {
            (Some(proven), Some(told)) if told != proven => Some(format!("{proven} (says {told})")),
            (None, Some(told)) => Some(format!("somebody (says {told})")),
            (proven, _) => proven,
        }
    }

    fn user(self) -> Option<String> {
        let uid = self.0?;
        let user = User::from_uid(uid).ok().flatten();
        Some(user.map_or_else(|| format!("uid {uid}"), |user| user.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_the_kernel_says_comes_first() {
        let (here, _there) = UnixStream::pair().expect("a pair");
        let own = User::from_uid(nix::unistd::getuid()).expect("asked");
        let own = own.map_or_else(
            || format!("uid {}", nix::unistd::getuid()),
            |user| user.name,
        );
        let peer = Peer::of(&here);
        assert_eq!(peer.name(None).await, Some(own.clone()));
        assert_eq!(peer.name(Some(own.clone())).await, Some(own.clone()));
        let told = peer
            .name(Some("ada\x1b[2J".repeat(99)))
            .await
            .expect("a name");
        assert!(
            told.starts_with(&format!("{own} (says ada\\u{{1b}}[2J")),
            "{told}"
        );
        assert!(told.len() < 100 && told.ends_with("…)"), "{told}");
        let nobody = Peer(Some(Uid::from_raw(4_000_000_000)));
        assert_eq!(nobody.name(None).await.as_deref(), Some("uid 4000000000"));
        let unknown = Peer(None).name(Some("ada".to_owned())).await;
        assert_eq!(unknown.as_deref(), Some("somebody (says ada)"));
    }
}
