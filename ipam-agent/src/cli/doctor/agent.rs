//! What the agent was told, and whether it can work with it.

use std::{fs, io::ErrorKind, os::unix::net::UnixStream, path::Path, sync::Arc};

use nix::sys::statvfs::{Statvfs, statvfs};
use tokio::runtime::Handle;

use super::{fail, ok, warn};
use crate::{
    cni,
    config::{Config, Cri},
    engine::{holders::Own, lease::Mode},
    error::in_full,
    holder::cri::{self, Runtime},
    report::{
        count,
        document::{Check, CheckStatus},
    },
    serve::{Client, ClientError, Listeners},
    source::live::pins_place,
    state,
    store::{LeaseStore, file::LeaseFile, host_local::HostLocal, notes::Note, source::Source},
};

pub(super) fn configuration(config: &Config) -> Check {
    match &config.file {
        Some(file) => ok("configuration", file.display().to_string()),
        None => ok("configuration", "no file, all default"),
    }
}

/// All stores in one; the worst of them counts.
pub(super) fn stores(config: &Config) -> Check {
    let mut all = ok("stores", "");
    for store in &config.stores {
        let found = match &store.source {
            Source::HostLocal(directory) => networks(directory),
            Source::File(file) => lease_file(file),
        };
        if !all.detail.is_empty() {
            all.detail += "; ";
        }
        all.detail += &found.detail;
        if found.status > all.status {
            (all.status, all.mend) = (found.status, found.mend);
        }
    }
    if config.stores.is_empty() {
        let mend = "name one in `stores`, or only conflicts without leases are found";
        return warn("stores", "none is configured", mend);
    }
    all
}

fn networks(directory: &Path) -> Check {
    let place = directory.display();
    match fs::read_dir(directory) {
        Ok(entries) => {
            let networks = entries.filter_map(|entry| entry.ok());
            let networks = networks.filter(|entry| entry.path().is_dir()).count();
            let found = format!("host-local in {place}: {}", count(networks, "network"));
            readable(directory, found)
        }
        Err(error) => {
            let detail = match error.kind() {
                ErrorKind::NotFound => format!("host-local: there is no {place}"),
                _ => format!("host-local in {place}: {error}"),
            };
            let mend = "if host-local keeps its leases elsewhere, say so with `dir` in `stores`; \
                        in a container, mount that directory; if this host has no pods yet, \
                        all is well";
            warn("", detail, mend)
        }
    }
}

/// Whether every network can be read, and is what host-local makes.
fn readable(directory: &Path, found: String) -> Check {
    let cni = Arc::new(cni::Reader::new(cni::Paths::default()));
    let reading = HostLocal::new(directory.to_owned(), Mode::Observe, Vec::new(), cni).read();
    if let Some(error) = reading.views.iter().find_map(|view| view.as_ref().err()) {
        let mend =
            "mend that, or name another `dir` in `stores`: nothing of it is released meanwhile";
        return fail("", format!("{found}; {}", in_full(error)), mend);
    }
    let odd: Vec<String> = reading.notes.lines_of(Note::keeps_its_address).collect();
    if odd.is_empty() {
        return ok("", found);
    }
    let mend = "the plugin hands out no address whose name is taken, and the agent touches nothing \
                that the plugin did not make: look at it, and remove it by hand";
    warn("", format!("{found}; {}", odd.join("; ")), mend)
}

fn lease_file(file: &Path) -> Check {
    let reading = LeaseFile::new(file.to_owned(), Vec::new()).read();
    match reading.views.into_iter().find_map(Result::err) {
        None => ok("", format!("lease file {}", file.display())),
        Some(error) => {
            let mend = "mend the file, or take it out of `stores`: until then nothing is known of \
                        its leases";
            fail("", in_full(&error), mend)
        }
    }
}

pub(super) fn container_runtime(config: &Config) -> Check {
    const NAME: &str = "container runtime";
    let Some(sockets) = cri::sockets(&config.holders.cri) else {
        return ok(NAME, "off: nobody is asked");
    };
    let named = matches!(config.holders.cri, Cri::Socket(_));
    let answers = cri::ask(&sockets, cri::PATIENCE);
    let mut found = Vec::new();
    for (socket, answer) in sockets.iter().zip(answers) {
        match answer {
            Ok(runtime) => found.push(told(socket, &runtime)),
            Err(error) if error.is_absent() && !named => {}
            Err(error) => {
                let mend = "mend it, or name another with holders.cri: \
                            nothing is released until it answers";
                return fail(NAME, in_full(&error), mend);
            }
        }
    }
    if found.is_empty() {
        let mend = "if this host has none, say `holders: { cri: off }`: \
                    nothing is released while it is missing";
        let sockets: Vec<_> = sockets
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        return warn(
            NAME,
            format!("none listens on {}", sockets.join(", ")),
            mend,
        );
    }
    if cri::own() == Own::Pod(None) {
        let detail = "this is a pod, and /proc/self/mountinfo doesn't tell of which sandbox";
        let mend = "nothing is released while the agent can't find itself in the runtime's list";
        return fail(NAME, detail, mend);
    }
    ok(NAME, found.join("; "))
}

/// `containerd 1.7.23 on /run/containerd/containerd.sock: 12 sandboxes, 1 of them NOTREADY`
fn told(socket: &Path, runtime: &Runtime) -> String {
    let sandboxes = &runtime.sandboxes;
    let not_ready = sandboxes.iter().filter(|sandbox| !sandbox.ready).count();
    let mut told = format!(
        "{} on {}: {} sandboxes",
        runtime.version,
        socket.display(),
        sandboxes.len()
    );
    if not_ready > 0 {
        told += &format!(", {not_ready} of them NOTREADY");
    }
    told
}

pub(super) fn state(config: &Config) -> Check {
    const NAME: &str = "state";
    match state::persistence(&config.state_dir) {
        Ok(()) => {
            let place = config.state_dir.display().to_string();
            let full = |found: Statvfs| found.blocks_available() == 0;
            if statvfs(&config.state_dir).is_ok_and(full) {
                let mend = "make room: nothing is released while the journal can't be written";
                return warn(NAME, format!("{place}: no space is left on its disk"), mend);
            }
            if state::stays_open_to_others(&config.state_dir) {
                let mend = "give a state_dir of its own, or `chmod 0700` it: the agent leaves one \
                            alone that holds other files than its own";
                return warn(NAME, format!("{place}: others may look into it"), mend);
            }
            ok(NAME, place)
        }
        Err(error) => {
            let mend = "give a state_dir that survives: nothing is released until then";
            warn(NAME, in_full(&error), mend)
        }
    }
}

/// Whether what the kernel saw is there for the next agent.
pub(super) fn continuity(_: &Config) -> Check {
    const NAME: &str = "restart";
    match pins_place() {
        Ok(place) => ok(
            NAME,
            format!("goes on where it was, by {}", place.display()),
        ),
        Err(error) => {
            let mend = "mount it: until then whatever is proven of a lease begins anew with \
                        every start of the agent";
            warn(NAME, error.to_string(), mend)
        }
    }
}

pub(super) fn pause(config: &Config) -> Check {
    const NAME: &str = "unattended releases";
    let holders = &config.holders;
    if !config.observe.data_plane {
        let detail = "none, and none that is asked for: observe.data_plane is false";
        let mend = "take it out, unless only conflicts are to be found";
        return warn(NAME, detail, mend);
    }
    if holders.cri == Cri::Off && !holders.netns {
        let detail = "none, and none that is asked for: with holders: { cri: off, netns: false } \
                      nobody is asked who holds an address";
        let mend = "take `netns` out, unless only conflicts are to be found";
        return warn(NAME, detail, mend);
    }
    match state::Paused::read(&config.state_dir) {
        Ok(None) => ok(NAME, "not paused"),
        Ok(Some(paused)) => warn(
            NAME,
            paused.sentence(),
            "`ipam-agent reclaim resume`, once the reason is gone",
        ),
        Err(error) => warn(
            NAME,
            format!("{}: {error}", config.state_dir.display()),
            "run this as root, to see whether they are paused",
        ),
    }
}

pub(super) fn floors(config: &Config) -> Check {
    const NAME: &str = "floors";
    match config.reclaim.lab {
        false => ok(NAME, "in place"),
        true => Check {
            status: CheckStatus::Warn,
            ..fail(
                NAME,
                "reclaim.lab is true: leases may be released far too early",
                "take it out, unless this is a laboratory",
            )
        },
    }
}

/// Whether the daemon could listen, where none runs: one that does may have been told otherwise
/// by its flags.
pub(super) fn listen(config: &Config) -> Check {
    const NAME: &str = "listen";
    let alone = UnixStream::connect(&config.socket).is_err_and(|error| {
        matches!(
            error.kind(),
            ErrorKind::NotFound | ErrorKind::ConnectionRefused
        )
    });
    if !alone {
        return ok(NAME, "the daemon that runs listens where it was told to");
    }
    let addresses: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
    let addresses = match addresses.as_slice() {
        [] => return ok(NAME, "off"),
        addresses => addresses.join(", "),
    };
    match Listeners::bind(&config.listen) {
        Ok(_) => ok(NAME, format!("{addresses} is free")),
        Err(error) => {
            let mend = "the daemon does not start until it can listen there";
            fail(NAME, in_full(&error), mend)
        }
    }
}

pub(super) fn daemon(config: &Config) -> Check {
    const NAME: &str = "daemon";
    let socket = config.socket.display();
    let start = "start it: `systemctl start ipam-agent`, or `ipam-agent run` by hand; \
                 without it nothing is watched";
    let client = Client::new(&config.socket);
    match Handle::current().block_on(client.ready()) {
        Ok((ready, text)) => {
            let (first, more) = text.split_once('\n').unwrap_or((&text, ""));
            let more: Vec<&str> = more
                .lines()
                .map(|line| line.trim_start_matches("- ").trim_start_matches("note: "))
                .collect();
            match (ready, more.as_slice()) {
                (true, []) => ok(NAME, format!("answers on {socket}, and is ready")),
                (true, notes) => warn(
                    NAME,
                    format!("answers on {socket}; {}", notes.join("; ")),
                    "mend what lasts; what has just begun is over by itself in half a minute",
                ),
                (false, []) => fail(
                    NAME,
                    format!("on {socket}: {first}"),
                    "`systemctl restart ipam-agent`; its log says what it did last",
                ),
                (false, problems) => fail(
                    NAME,
                    format!("not ready on {socket}: {}", problems.join("; ")),
                    "mend what is named: it is ready again by itself then",
                ),
            }
        }
        Err(ClientError::NoDaemon(path)) => {
            let found = match path.exists() {
                false => format!("none runs: there is no {socket}"),
                true => format!("none runs: it left {socket} behind"),
            };
            warn(NAME, found, start)
        }
        Err(ClientError::Forbidden(_)) => warn(
            NAME,
            format!("one runs, and this user may not ask it on {socket}"),
            "run this as root, or as a member of the socket's group",
        ),
        Err(error @ ClientError::Slow { .. }) => fail(
            NAME,
            in_full(&error),
            "`systemctl restart ipam-agent`, if that goes on; its log says what it did last",
        ),
        Err(error) => fail(
            NAME,
            in_full(&error),
            "`systemctl restart ipam-agent`: it may be of another version than this, or something \
             else has its socket",
        ),
    }
}
