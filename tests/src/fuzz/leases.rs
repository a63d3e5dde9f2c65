//! Files about leases: host-local's own, lease files, and CNI's configurations and caches.
//! The first byte says which.

use std::{path::Path, sync::Arc};

use ipam_agent::{
    cni::{Paths, Reader},
    engine::lease::Mode,
    store::{LeaseStore, Reading, file::LeaseFile, host_local::HostLocal},
};
use ipam_common::Address;

use super::captures::file;

const CONTAINER: &str = "247610f4dedd4ab7247d07dbda19c81ca9817f85820742cad49d407ffae9e4ed";
const NETWORK: &str = "k8s-pod-network";
const LEASE: &str = "10.52.0.86";

pub(super) fn run(bytes: &[u8]) {
    let Some((which, bytes)) = bytes.split_first() else {
        return;
    };
    match which % 6 {
        0 => drop(lease_file("leases.yaml", bytes)),
        1 => drop(lease_file("leases.json", bytes)),
        2 => drop(lease_file("leases.csv", bytes)),
        3 => host_local(Some(bytes), None, None),
        4 => host_local(None, Some(bytes), None),
        _ => host_local(None, None, Some(bytes)),
    }
}

/// Half a lease file is none: there is an error, or every lease is one that can be.
fn lease_file(name: &str, bytes: &[u8]) -> Reading {
    let reading = LeaseFile::new(file(name, bytes), Vec::new()).read();
    assert_eq!(reading.views.len(), 1, "one file is one store");
    for view in reading.views.iter().flatten() {
        let mut addresses = view.leases.iter().map(|lease| lease.address);
        assert!(addresses.all(|address| Address::from_ip(address.ip()) == Some(address)));
    }
    reading
}

/// A lease is there whatever its file says: doubt keeps it. What is beside it may name it,
/// and never hides it.
fn host_local(lease: Option<&[u8]>, cached: Option<&[u8]>, configured: Option<&[u8]>) {
    let whole = format!("{CONTAINER}\r\neth0");
    let lease = lease.unwrap_or(whole.as_bytes());
    let path = file(&format!("networks/{NETWORK}/{LEASE}"), lease);
    let cache = format!("results/{NETWORK}-{CONTAINER}-eth0");
    let cache = file(&cache, cached.unwrap_or_default());
    let configuration = file("net.d/10-net.conflist", configured.unwrap_or_default());
    let directory = |path: &Path| path.parent().expect("in a directory").to_owned();
    let reader = Reader::new(Paths {
        configurations: vec![directory(&configuration)],
        caches: vec![directory(&cache)],
        flannel: "/nonexistent/subnet.env".into(),
    });
    let networks = directory(&directory(&path));
    let store = HostLocal::new(networks, Mode::Observe, Vec::new(), Arc::new(reader));
    let reading = store.read();
    let leases: Vec<_> = reading
        .views
        .iter()
        .flatten()
        .flat_map(|view| &view.leases)
        .collect();
    let [known] = leases[..] else {
        panic!("one lease: {leases:?}");
    };
    assert_eq!(known.address.to_string(), LEASE);
    let content = known.generation().content;
    assert_eq!(content[..], lease[..content.len()]);
}
