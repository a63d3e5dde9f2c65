//! Clients that mean harm.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tests::runtime::in_lab;

use super::{LOCAL, PATIENCE, fight, get, host, metrics, sample, wait_for};

fn resident_kib(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.context("no VmRSS")?.parse()?)
}

/// As many clients as there are, each of which says this and no more.
fn crowd(clients: usize, words: &[u8]) -> Result<Vec<TcpStream>> {
    let connect = |_| {
        let mut stream = TcpStream::connect(LOCAL)?;
        // Whoever was before may be hung up on by now.
        let _ = stream.write_all(words);
        Ok(stream)
    };
    (0..clients).map(connect).collect()
}

#[test]
fn a_thousand_hostile_clients_starve_nobody() {
    in_lab(|lab| {
        let (_net, pods, daemon) = host(lab)?;
        metrics()?;
        let before = resident_kib(daemon.pid())?;
        let huge = vec![b'x'; 64 << 10];
        let huge_head = [
            b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ".as_slice(),
            &huge,
        ]
        .concat();
        let endless =
            b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\nx";
        let pipelined = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(200);
        let mut all = Vec::new();
        for words in [
            b"".as_slice(),
            b"GET /metrics HTTP/1.1\r\nHost: loc",
            &huge_head,
            endless,
            &pipelined,
            // Who asks, and never reads.
            b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ] {
            all.extend(crowd(1000, words)?);
            // Those who behave are answered meanwhile.
            metrics()?;
            ensure!(get(LOCAL, "/healthz", "")?.0.starts_with("HTTP/1.1 200"));
            let segments = daemon.query("segments", &[])?;
            ensure!(segments["segments"].is_array(), "{segments}");
            // Descriptors are few, here too.
            all.drain(..all.len() - 500.min(all.len()));
        }
        fight(&pods)?;
        wait_for("the duplicate", || {
            let told = metrics()?;
            let duplicates = "ipam_conflicts{kind=\"duplicate-address\",segment=\"cni0\"}";
            Ok(sample(&told, duplicates) == Some(1.0))
        })?;
        let told = metrics()?;
        let open = sample(&told, "process_open_fds").context("descriptors")?;
        ensure!(open < 400.0, "{open} descriptors are open");
        let more = resident_kib(daemon.pid())?.saturating_sub(before);
        ensure!(more < 16 << 10, "{more} KiB more than before");
        drop(all);
        daemon.stop()?;
        Ok(())
    });
}

#[test]
fn who_dawdles_is_hung_up_on() {
    in_lab(|lab| {
        let (_net, _pods, daemon) = host(lab)?;
        let mut slow = TcpStream::connect(LOCAL)?;
        slow.set_read_timeout(Some(PATIENCE))?;
        // A header a second, for ever.
        slow.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n")?;
        let mut hung_up = false;
        for number in 0..60 {
            if slow
                .write_all(format!("X-{number}: y\r\n").as_bytes())
                .is_err()
            {
                hung_up = true;
                break;
            }
            thread::sleep(Duration::from_secs(1));
        }
        if !hung_up {
            let mut rest = Vec::new();
            // It ends, by whatever: an answer or a reset.
            let _ = slow.read_to_end(&mut rest);
        }
        ensure!(hung_up, "a header a second went on for a minute");
        daemon.stop()?;
        Ok(())
    });
}
