//! The live wire: our program on the host's ports, asked whether it is still there, and
//! the tables and events that it fills.
//!
//! It touches ingress hooks of the ports it is told to attach to, and removes from them
//! nothing but what is its own. On a clean stop nothing of it is left; where it is pinned, an
//! agent that was killed or hands over leaves it at work for the next.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fs,
    iter::successors,
    sync::Arc,
};

use aya::{Ebpf, maps::RingBuf, programs::ProgramError};
use nix::net::if_::if_indextoname;

use crate::{
    engine::{evidence::PortCheck, time::Timestamp},
    source::links::Touch,
};

mod attach;
mod clsact;
mod events;
mod housekeeping;
mod load;
mod pins;
pub mod pod;
mod tables;

pub use attach::{AttachError, Hook, remove_all_leftovers, remove_leftovers};
use attach::{Attachment, Place, Standing};
pub(crate) use clsact::may_come_first;
pub use events::Events;
use ipam_common::sighting::Watch;
pub use load::LoadError;
pub use pins::{Pins, PinsError, pins_place, remove_pins};
pub use tables::{Counts, TableError, Tables};

/// How to attach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachMode {
    /// By TCX where the kernel has it (Linux 6.6), else at the clsact qdisc.
    #[default]
    Auto,
    /// At the clsact qdisc, as on an older kernel.
    Clsact,
}

/// What to load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Stamp the time of the last IP packet from each leased address.
    pub data_plane: bool,
    /// How to attach.
    pub mode: AttachMode,
}

/// Of ifindex 0, which no port has, WATCHES holds since when the host is watched.
const HOST: u32 = 0;

/// The program, and the ports that it is attached to, in the network namespace of the
/// thread that calls.
pub struct Live {
    ebpf: Ebpf,
    program: u32,
    options: Options,
    clock: fn() -> Timestamp,
    since: Timestamp,
    ports: BTreeMap<u32, Attachment>,
    /// Those that were attached to at once, and are to be settled.
    unsettled: BTreeSet<u32>,
    tables: Arc<Tables>,
    pins: Option<Pins>,
}

impl Live {
    /// Load the program; needs a tokio runtime. It sees nothing until it is attached. With
    /// `pins`, what an agent before us left there is taken over. `clock` is CLOCK_BOOTTIME.
    ///
    /// # Errors
    ///
    /// What is missing, and the mend.
    pub fn load(
        options: Options,
        pins: Option<Pins>,
        clock: fn() -> Timestamp,
    ) -> Result<(Self, Events), LoadError> {
        let mut ebpf = load::load(options.data_plane, pins.as_ref())?;
        let tables = Tables::take(&mut ebpf)?;
        let ring = RingBuf::try_from(tables::take(&mut ebpf, "EVENTS")?);
        let ring = ring.map_err(|_| LoadError::Layout { name: "EVENTS" })?;
        let events = Events::new(ring).map_err(LoadError::Events)?;
        let program = load::program(&mut ebpf)?.info();
        let program = program.map_err(|error| LoadError::Object(Box::new(error.into())))?;
        let since = match tables.watch(HOST) {
            Some(watch) => Timestamp(watch.since),
            None => {
                let since = clock();
                let host = Watch {
                    since: since.0,
                    ..Watch::default()
                };
                // Unnoted, the next agent begins anew.
                let _ = tables.note_watch(HOST, host);
                since
            }
        };
        let live = Self {
            program: program.id(),
            ebpf,
            options,
            clock,
            since,
            ports: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            tables: Arc::new(tables),
            pins,
        };
        Ok((live, events))
    }

    /// The tables, for whatever thread needs them.
    pub fn tables(&self) -> Arc<Tables> {
        Arc::clone(&self.tables)
    }

    /// Since when this host is watched, by us and those whose place we took.
    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// The ports that we attached to, and where; whether the program is still there is
    /// [`Live::check`]'s to say.
    pub fn ports(&self) -> impl Iterator<Item = (u32, Hook)> {
        self.ports
            .iter()
            .map(|(ifindex, attachment)| (*ifindex, attachment.hook()))
    }

    /// Attach to a port, first of all programs there, and since when it sees every frame.
    /// What an agent that was killed left is replaced, without a gap where its maps are ours.
    /// Where ours is there and first already, nothing is done; where it isn't any more, it is
    /// attached anew.
    ///
    /// # Errors
    ///
    /// Why not. Nothing of ours is then on the port.
    pub fn attach(&mut self, ifindex: u32, name: &str) -> Result<Timestamp, AttachError> {
        if let PortCheck::Attached(since) = self.check(ifindex) {
            return Ok(since);
        }
        self.release(ifindex);
        self.make_or_leave(ifindex, name, self.options.mode)
    }

    /// Attach to a port, as [`Live::attach`], but at the clsact qdisc, which is done at once:
    /// at TCX the kernel waits for an RCU grace period, 8 to 19 ms, one port after another.
    /// [`Live::settle`] makes up for it.
    ///
    /// # Errors
    ///
    /// As [`Live::attach`].
    pub fn attach_at_once(&mut self, ifindex: u32, name: &str) -> Result<Timestamp, AttachError> {
        let pinned = self
            .pins
            .as_ref()
            .is_some_and(|pins| pins.link(ifindex).exists());
        // What an agent before us left there is taken over, and that is quick.
        if self.options.mode == AttachMode::Clsact || pinned {
            return self.attach(ifindex, name);
        }
        self.release(ifindex);
        match self.make_or_leave(ifindex, name, AttachMode::Clsact) {
            Err(AttachError::Occupied { .. }) => self.attach(ifindex, name),
            made => {
                self.unsettled.insert(ifindex);
                made
            }
        }
    }

    /// Whether a port is left for [`Live::settle`].
    pub fn is_unsettled(&self) -> bool {
        !self.unsettled.is_empty()
    }

    /// Puts the program where it belongs on one of the ports that were attached to at once,
    /// without a gap; `None` if there is none left.
    pub fn settle(&mut self) -> Option<(u32, Result<Timestamp, AttachError>)> {
        let (ifindex, name) = loop {
            let ifindex = self.unsettled.pop_first()?;
            // Where it isn't first any more, the next check has it attached anew.
            if matches!(self.check(ifindex), PortCheck::Attached(_))
                && let Ok(name) = if_indextoname(ifindex)
            {
                break (ifindex, name.to_string_lossy().into_owned());
            }
        };
        Some((
            ifindex,
            self.make_or_leave(ifindex, &name, self.options.mode),
        ))
    }

    /// If it can't be made, nothing of ours is left on the port.
    fn make_or_leave(
        &mut self,
        ifindex: u32,
        name: &str,
        mode: AttachMode,
    ) -> Result<Timestamp, AttachError> {
        let made = self.make(ifindex, name, mode);
        if made.is_err() {
            self.detach(ifindex);
        }
        made
    }

    fn make(
        &mut self,
        ifindex: u32,
        name: &str,
        mode: AttachMode,
    ) -> Result<Timestamp, AttachError> {
        let table = |source| AttachError::Table {
            interface: name.to_owned(),
            source,
        };
        // First, so that the very first frame finds room.
        self.tables.open_port(ifindex).map_err(table)?;
        let before = self.tables.watch(ifindex);
        let program = load::program(&mut self.ebpf).map_err(|_| AttachError::Program {
            interface: name.to_owned(),
            source: Box::new(ProgramError::NotLoaded),
        })?;
        let place = Place {
            ifindex,
            name,
            pin: self.pins.as_ref().map(|pins| pins.link(ifindex)),
            before,
            qdisc: !matches!(
                self.ports.get(&ifindex),
                Some(Attachment::Clsact { qdisc: false })
            ),
        };
        let (attachment, kept) = Attachment::make(program, self.program, mode, &place)?;
        // If it can't be said, the next check finds something changed, and begins anew.
        let standing = attachment.standing(self.program, ifindex);
        let found = standing.ok().and_then(Result::ok);
        let standing = found.unwrap_or(Standing::UNKNOWN);
        self.ports.insert(ifindex, attachment);
        let mut watch = Watch {
            since: (self.clock)().0,
            revision: standing.revision,
            program: self.program,
            carrier_changes: standing.carrier_changes,
            data_plane: self.options.data_plane.into(),
            reserved: 0,
        };
        if let Some(before) = before
            && kept
            && found.is_some_and(|found| found.carrier_changes == before.carrier_changes)
            && before.data_plane == watch.data_plane
        {
            watch.since = before.since;
        }
        self.tables.note_watch(ifindex, watch).map_err(table)?;
        Ok(Timestamp(watch.since))
    }

    /// Ask the kernel whether our program is on the port and sees its frames first, and since
    /// when it has seen every one that came.
    pub fn check(&self, ifindex: u32) -> PortCheck {
        let (Some(attachment), Some(watch)) =
            (self.ports.get(&ifindex), self.tables.watch(ifindex))
        else {
            return PortCheck::Blind("not attached".to_owned());
        };
        let standing = match attachment.standing(self.program, ifindex) {
            Ok(Ok(standing)) => standing,
            Ok(Err(why)) => return PortCheck::Blind(why),
            Err(error) => return PortCheck::Blind(explain(&error)),
        };
        if standing.revision != watch.revision {
            let why = "what takes the frames at TCX was changed meanwhile";
            return PortCheck::Blind(why.to_owned());
        }
        if standing.carrier_changes == watch.carrier_changes {
            return PortCheck::Attached(Timestamp(watch.since));
        }
        let lit = Watch {
            carrier_changes: standing.carrier_changes,
            ..watch
        };
        self.begin_again(ifindex, lit)
    }

    /// [`Live::check`] after this was done to the port. What came before our program and went
    /// again leaves no trace, and what it took meanwhile is missed all the same.
    pub fn touched(&self, ifindex: u32, touch: Touch) -> PortCheck {
        let is_overtaken = match touch {
            Touch::Shown => false,
            // TCX runs before.
            Touch::Filter => {
                { self.ports.get(&ifindex) }.map(Attachment::hook) == Some(Hook::Clsact)
            }
            Touch::Xdp => true,
        };
        match (self.check(ifindex), self.tables.watch(ifindex)) {
            (PortCheck::Attached(_), Some(watch)) if is_overtaken => {
                self.begin_again(ifindex, watch)
            }
            (check, _) => check,
        }
    }

    /// Nobody can tell what came and went until now: it is as if the host were watched only
    /// since now.
    pub fn begin_anew(&mut self) {
        self.since = (self.clock)();
        let host = Watch {
            since: self.since.0,
            ..Watch::default()
        };
        // Unnoted, the next agent believes in more than there was; what is noted of ports it
        // compares with the kernel.
        let _ = self.tables.note_watch(HOST, host);
    }

    /// The program is there and first, and has seen every frame since now.
    fn begin_again(&self, ifindex: u32, watch: Watch) -> PortCheck {
        let since = (self.clock)();
        let again = Watch {
            since: since.0,
            ..watch
        };
        match self.tables.note_watch(ifindex, again) {
            Ok(()) => PortCheck::Attached(since),
            Err(error) => PortCheck::Blind(explain(&error)),
        }
    }

    /// Take our program off a port, or forget a port that is gone. Its entries in
    /// SIGHTINGS go with the next sweep.
    pub fn detach(&mut self, ifindex: u32) {
        self.release(ifindex);
        // An entry that can't be removed does no harm but to take its place.
        let _ = self.tables.close_port(ifindex);
    }

    /// Take our program off all ports but these, also of what an agent before us left.
    pub fn keep_only(&mut self, wanted: &BTreeSet<u32>) {
        let noted = self.tables.watched().unwrap_or_default();
        for ifindex in noted
            .into_iter()
            .chain(self.ports.keys().copied())
            .collect::<BTreeSet<_>>()
        {
            if ifindex == HOST || wanted.contains(&ifindex) {
                continue;
            }
            if !self.ports.contains_key(&ifindex) {
                let _ = remove_leftovers(ifindex);
                let _ = self
                    .pins
                    .as_ref()
                    .map(|pins| fs::remove_file(pins.link(ifindex)));
            }
            self.detach(ifindex);
        }
    }

    /// Take our program off all ports, and unpin everything: nothing of ours is left.
    pub fn end(&mut self) {
        self.keep_only(&BTreeSet::new());
        if let Some(pins) = self.pins.take() {
            // What is left `uninstall` removes.
            let _ = pins.remove();
        }
    }

    /// Leave everything that is pinned at work, for the agent that comes next. Without pins
    /// it is taken away.
    pub fn hand_over(&mut self) {
        if self.pins.is_none() {
            return self.end();
        }
        self.ports.clear();
    }

    fn release(&mut self, ifindex: u32) {
        if let Some(attachment) = self.ports.remove(&ifindex) {
            attachment.undo(ifindex);
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        while let Some((ifindex, _)) = self.ports.first_key_value() {
            self.release(*ifindex);
        }
    }
}

/// The error and its sources in one line.
fn explain(error: &dyn Error) -> String {
    let sources = successors(error.source(), |error| (*error).source());
    sources.fold(error.to_string(), |text, source| {
        format!("{text}: {source}")
    })
}
