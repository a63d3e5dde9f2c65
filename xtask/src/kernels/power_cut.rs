//! A host whose power is cut: two boots of one disk. Of the first, what its page cache still
//! held is lost, as the emulator is killed; the second finds what the kernel had written.

use std::{fs::File, path::Path, process::Command};

use super::{Boot, Guest};
use crate::machine;

/// Room for a journal and some leases; the file is sparse.
const DISK_BYTES: u64 = 128 << 20;

/// Boots, cuts the power, boots again; what is looked for is the guest's program's.
pub fn test(guest: &Guest<'_>, stage: &Path) -> anyhow::Result<()> {
    let disk = stage.join("disk");
    File::create(&disk)?.set_len(DISK_BYTES)?;
    machine::run(
        Command::new(&guest.programs.mkfs)
            .args(["-q", "-F"])
            .arg(&disk),
    )?;
    let boot = |part, cut| Boot {
        part: Some(part),
        disk: Some(&disk),
        cut,
    };
    guest.run("up to the power cut", &boot("up-to-the-cut", true))?;
    guest.run("after the power cut", &boot("after-the-cut", false))
}
