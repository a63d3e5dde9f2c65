//! What the program on the ports costs a TCP stream from pod to pod: bytes a second with
//! the agent over bytes a second without, by turns.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};

use super::{
    Figure, in_lab, median,
    wire::{Watched, address, pods},
};
use crate::lab::{Netns, ip};

const ROUNDS: usize = 21;
const STREAM: Duration = Duration::from_millis(500);
const CHUNK: usize = 128 * 1024;
const PORT: u16 = 5001;

/// `veth_throughput_ratio`; its baseline is the stream without the agent, in Gbit/s.
pub fn figures() -> Result<Vec<Figure>> {
    let (ratios, plain) = in_lab(|lab| {
        let pods = pods(lab, 2)?;
        for (number, pod) in (1..).zip(&pods) {
            let address = format!("{}/16", address(number));
            ip(&["-n", pod.name(), "address", "add", &address, "dev", "eth0"])?;
        }
        let [client, server] = &pods[..] else {
            return Err(anyhow!("two pods were asked for"));
        };
        let listener = server.inside(|| Ok(TcpListener::bind((address(2), PORT))?))?;
        let mut ratios = Vec::with_capacity(ROUNDS);
        let mut plain = Vec::with_capacity(ROUNDS);
        for round in 0..ROUNDS {
            let without = stream(client, &listener)?;
            let watched = Watched::start(&lab.disk().join("agent"))?;
            let with = stream(client, &listener)?;
            watched.stop()?;
            eprintln!("  round {round}: {without:.1} Gbit/s without, {with:.1} with");
            ratios.push(with / without);
            plain.push(without);
        }
        Ok((ratios, plain))
    })?;
    eprintln!("  without the agent {:.1} Gbit/s", median(plain));
    Ok(vec![Figure {
        name: "veth_throughput_ratio",
        value: median(ratios),
        unit: "ratio",
        target: None,
        least: None,
        baseline: Some(1.0),
    }])
}

/// How much a client gets through to the listener in [`STREAM`], in Gbit/s.
fn stream(client: &Netns, listener: &TcpListener) -> Result<f64> {
    let mut sending = client.inside(|| Ok(TcpStream::connect((address(2), PORT))?))?;
    let (mut receiving, _) = listener.accept()?;
    thread::scope(|scope| {
        let sender = scope.spawn(move || -> Result<()> {
            let chunk = vec![0; CHUNK];
            let begin = Instant::now();
            while begin.elapsed() < STREAM {
                sending.write_all(&chunk)?;
            }
            Ok(())
        });
        let mut chunk = vec![0; CHUNK];
        let mut bytes = 0;
        let begin = Instant::now();
        loop {
            match receiving.read(&mut chunk)? {
                0 => break,
                read => bytes += read,
            }
        }
        let seconds = begin.elapsed().as_secs_f64();
        sender
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(bytes as f64 * 8.0 / 1e9 / seconds)
    })
}
