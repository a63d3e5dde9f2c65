//! The live wire: our program on the host's ports, asked whether it is still there, and
//! the tables and events that it fills.
//!
//! It touches ingress hooks of the ports it is told to attach to, and removes from them
//! nothing but what is its own. On a clean stop nothing of it is left.

use std::{collections::BTreeMap, error::Error, iter::successors, sync::Arc};

use aya::{Ebpf, maps::RingBuf, programs::ProgramError};

use crate::engine::evidence::PortCheck;

mod attach;
mod clsact;
mod events;
mod housekeeping;
mod load;
pub mod pod;
mod tables;

use attach::Attachment;
pub use attach::{AttachError, Hook, remove_all_leftovers, remove_leftovers};
pub use events::Events;
pub use load::LoadError;
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

/// The program, and the ports that it is attached to, in the network namespace of the
/// thread that calls.
pub struct Live {
    ebpf: Ebpf,
    program: u32,
    mode: AttachMode,
    ports: BTreeMap<u32, Attachment>,
    tables: Arc<Tables>,
}

impl Live {
    /// Load the program; needs a tokio runtime. It sees nothing until it is attached.
    ///
    /// # Errors
    ///
    /// What is missing, and the mend.
    pub fn load(options: Options) -> Result<(Self, Events), LoadError> {
        let mut ebpf = load::load(options.data_plane)?;
        let tables = Tables::take(&mut ebpf)?;
        let ring = RingBuf::try_from(tables::take(&mut ebpf, "EVENTS")?);
        let ring = ring.map_err(|_| LoadError::Layout { name: "EVENTS" })?;
        let events = Events::new(ring).map_err(LoadError::Events)?;
        let program = load::program(&mut ebpf)?.info();
        let program = program.map_err(|error| LoadError::Object(Box::new(error.into())))?;
        let live = Self {
            program: program.id(),
            ebpf,
            mode: options.mode,
            ports: BTreeMap::new(),
            tables: Arc::new(tables),
        };
        Ok((live, events))
    }

    /// The tables, for whatever thread needs them.
    pub fn tables(&self) -> Arc<Tables> {
        Arc::clone(&self.tables)
    }

    /// The ports that we attached to, and where; whether the program is still there is
    /// [`Live::check`]'s to say.
    pub fn ports(&self) -> impl Iterator<Item = (u32, Hook)> {
        self.ports
            .iter()
            .map(|(ifindex, attachment)| (*ifindex, attachment.hook()))
    }

    /// Attach to a port, first of all programs there. What an agent that was killed left is
    /// replaced. Where ours is there and first already, nothing is done; where it isn't any
    /// more, it is attached anew. Takes well under a millisecond.
    ///
    /// # Errors
    ///
    /// Why not. Nothing of ours is then on the port.
    pub fn attach(&mut self, ifindex: u32, name: &str) -> Result<(), AttachError> {
        if self.check(ifindex) == PortCheck::Attached {
            return Ok(());
        }
        self.release(ifindex);
        // First, so that the very first frame finds room.
        let room = self.tables.open_port(ifindex);
        let attached = match room {
            Ok(()) => self.make(ifindex, name),
            Err(source) => Err(AttachError::Table {
                interface: name.to_owned(),
                source,
            }),
        };
        match attached {
            Ok(attachment) => {
                self.ports.insert(ifindex, attachment);
                Ok(())
            }
            Err(error) => {
                self.detach(ifindex);
                Err(error)
            }
        }
    }

    fn make(&mut self, ifindex: u32, name: &str) -> Result<Attachment, AttachError> {
        let program = load::program(&mut self.ebpf).map_err(|_| AttachError::Program {
            interface: name.to_owned(),
            source: Box::new(ProgramError::NotLoaded),
        })?;
        Attachment::make(program, self.program, self.mode, ifindex, name)
    }

    /// Ask the kernel whether our program is on the port, and sees its frames first.
    pub fn check(&self, ifindex: u32) -> PortCheck {
        let Some(attachment) = self.ports.get(&ifindex) else {
            return PortCheck::Blind("not attached".to_owned());
        };
        match attachment.why_blind(self.program, ifindex) {
            Ok(None) => PortCheck::Attached,
            Ok(Some(why)) => PortCheck::Blind(why),
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
