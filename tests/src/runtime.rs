//! What a container runtime does around the CNI plugins: runs the real bridge and
//! host-local binaries, and keeps libcni's cache of what they answered.

use std::{
    fs,
    io::Write as _,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::{
    frames::{Arp, Mac, Nd, flags},
    lab::{self, Lab, Netns},
    plugins::{MACHINES, Plugins},
};

/// libcni's cache of attachments.
const CACHE: &str = "/var/lib/cni/results";

/// A network as an administrator configures it: one file in `/etc/cni/net.d`.
#[derive(Clone, Debug)]
pub struct Network {
    name: String,
    conf: Value,
    plugins: Plugins,
}

/// A pod, attached.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its sandbox id, 64 hex digits as containerd gives.
    pub container_id: String,
    /// Its namespace.
    pub netns: Netns,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The same with the lengths of their prefixes.
    pub prefixed: Vec<(IpAddr, u8)>,
    /// Its MAC.
    pub mac: String,
    /// The host's end of its link.
    pub host_interface: String,
}

impl Pod {
    /// The pod asserts an address, its own or not: one announcement or unsolicited
    /// advertisement.
    pub fn claims(&self, address: IpAddr) -> Result<()> {
        let frame = claim(self.mac()?, address);
        self.netns.send("eth0", &[frame])
    }

    /// Its MAC.
    pub fn mac(&self) -> Result<Mac> {
        let mac: ipam_common::Mac = self.mac.parse().context("the plugin told no MAC")?;
        Ok(mac.bytes())
    }

    /// Its address of the family of IPv4, or of IPv6.
    pub fn address(&self, v6: bool) -> Result<IpAddr> {
        let mut of = self.addresses.iter().filter(|ip| ip.is_ipv6() == v6);
        let address = of.next().context("the pod has no such address")?;
        Ok(*address)
    }
}

/// A station's assertion of an address to everybody.
pub fn claim(mac: Mac, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(ip) => Arp::announcement(mac, ip).frame(),
        IpAddr::V6(ip) => Nd::advertisement(mac, ip, flags::OVERRIDE).frame(),
    }
}

/// Runs `test` in a laboratory with the real plugins, or says that it is skipped.
///
/// # Panics
///
/// If the test fails, or is skipped where that is not allowed.
pub fn in_lab<F>(test: F)
where
    F: FnOnce(&mut Lab) -> Result<()> + Send + 'static,
{
    match available() {
        Ok(()) => lab::in_lab(test),
        Err(why) => {
            crate::skip::skip(&why);
        }
    }
}

/// Whether the real plugins are here; if not, the mend.
pub fn available() -> Result<(), String> {
    for plugin in ["bridge", "host-local"] {
        if !Plugins::default().has(plugin) {
            return Err(format!(
                "no {plugin} plugin in {MACHINES}: run `cargo xtask setup`"
            ));
        }
    }
    Ok(())
}

impl Network {
    /// A bridge network with host-local's addresses from these prefixes, one range set
    /// each, written to `/etc/cni/net.d`.
    pub fn bridge(name: &str, bridge: &str, prefixes: &[&str]) -> Result<Self> {
        let ranges: Vec<Value> = prefixes
            .iter()
            .map(|subnet| json!([{ "subnet": subnet }]))
            .collect();
        let plugin = json!({
            "type": "bridge", "bridge": bridge, "isGateway": true,
            "ipam": { "type": "host-local", "ranges": ranges },
        });
        let mut conf = plugin;
        conf["name"] = json!(name);
        let network = Self {
            name: name.to_owned(),
            conf,
            plugins: Plugins::default(),
        };
        network.by(Plugins::default())
    }

    /// The same, made by these plugins.
    pub fn by(mut self, plugins: Plugins) -> Result<Self> {
        let mut plugin = self.conf.clone();
        if let Some(plugin) = plugin.as_object_mut() {
            plugin.remove("cniVersion");
            plugin.remove("name");
        }
        let name = &self.name;
        let list = json!({ "cniVersion": plugins.version, "name": name, "plugins": [plugin] });
        fs::write(
            format!("/etc/cni/net.d/10-{name}.conflist"),
            serde_json::to_vec_pretty(&list)?,
        )?;
        self.conf["cniVersion"] = json!(plugins.version);
        self.plugins = plugins;
        Ok(self)
    }

    /// The bridge, made as the plugin makes it if it isn't there, with the gateways'
    /// addresses.
    pub fn make_bridge(&self) -> Result<String> {
        let bridge = self.conf["bridge"].as_str().context("a bridge")?.to_owned();
        if Path::new("/proc/sys/net/ipv4/conf").join(&bridge).exists() {
            return Ok(bridge);
        }
        crate::lab::ip(&["link", "add", &bridge, "type", "bridge"])?;
        let sets = self.conf["ipam"]["ranges"].as_array();
        for set in sets.into_iter().flatten() {
            let subnet = set[0]["subnet"].as_str().unwrap_or_default();
            let subnet: ipnet::IpNet = subnet.parse()?;
            let gateway = subnet.hosts().next().context("a subnet has addresses")?;
            let gateway = match gateway {
                // Of IPv6 the first address is the subnet's router anycast address.
                IpAddr::V6(_) => subnet.hosts().nth(1).unwrap_or(gateway),
                IpAddr::V4(_) => gateway,
            };
            let with_prefix = format!("{gateway}/{}", subnet.prefix_len());
            let mut add = vec!["address", "add", &with_prefix, "dev", &bridge];
            if gateway.is_ipv6() {
                add.push("nodad");
            }
            crate::lab::ip(&add)?;
        }
        crate::lab::ip(&["link", "set", &bridge, "up"])?;
        Ok(bridge)
    }

    /// Where host-local keeps this network's leases.
    pub fn leases(&self) -> PathBuf {
        Path::new("/var/lib/cni/networks").join(&self.name)
    }

    /// Starts a pod on this network.
    pub fn start(&self, lab: &Lab, name: &str) -> Result<Pod> {
        let netns = lab.pod(name)?;
        let container_id = container_id(name);
        let answer = self.call("ADD", name, &container_id, netns.path())?;
        let result: Value =
            serde_json::from_slice(&answer).with_context(|| format!("ADD of {name}: no JSON"))?;
        self.keep(name, &container_id, &netns, &result)?;
        let texts = |pointer: &str| {
            let list = result.pointer(pointer).and_then(Value::as_array);
            list.into_iter().flatten()
        };
        let mut pod = Pod {
            name: name.to_owned(),
            container_id,
            netns,
            addresses: Vec::new(),
            prefixed: Vec::new(),
            mac: String::new(),
            host_interface: String::new(),
        };
        for ip in texts("/ips") {
            let text = ip["address"].as_str().unwrap_or_default();
            let (address, prefix) = text.split_once('/').context("an address has a prefix")?;
            pod.addresses.push(address.parse()?);
            pod.prefixed.push((address.parse()?, prefix.parse()?));
        }
        for interface in texts("/interfaces") {
            let text = |key: &str| interface[key].as_str().unwrap_or_default().to_owned();
            if !text("sandbox").is_empty() {
                pod.mac = text("mac");
            } else if text("name").starts_with("veth") {
                pod.host_interface = text("name");
            }
        }
        ensure!(!pod.addresses.is_empty(), "{name} got no address");
        Ok(pod)
    }

    /// Ends a pod as kubelet does: DEL, then its namespace.
    pub fn stop(&self, pod: &Pod) -> Result<()> {
        self.free(pod)?;
        crate::lab::ip(&["netns", "del", pod.netns.name()])
    }

    /// Frees what a pod had, whose namespace may be gone: DEL.
    pub fn free(&self, pod: &Pod) -> Result<()> {
        // As runtimes do: a namespace that is gone has no path.
        let there = pod.netns.path().exists();
        let netns = if there {
            pod.netns.path()
        } else {
            Path::new("")
        };
        self.call("DEL", &pod.name, &pod.container_id, netns)?;
        let _ = fs::remove_file(self.cache(&pod.container_id));
        Ok(())
    }

    fn call(&self, verb: &str, pod: &str, id: &str, netns: &Path) -> Result<Vec<u8>> {
        let mut child = Command::new(self.plugins.dir.join("bridge"))
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", id)
            .env("CNI_NETNS", netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", &self.plugins.dir)
            .env(
                "CNI_ARGS",
                format!(
                    "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod};\
                     K8S_POD_INFRA_CONTAINER_ID={id}"
                ),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("can't run the bridge plugin: run `cargo xtask setup`")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(&serde_json::to_vec(&self.conf)?)?;
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!(
                "{verb} of {pod}: {}",
                String::from_utf8_lossy(&output.stdout).trim()
            );
        }
        Ok(output.stdout)
    }

    /// Writes the cache entry as libcni does when every plugin has succeeded.
    fn keep(&self, pod: &str, id: &str, netns: &Netns, result: &Value) -> Result<()> {
        let entry = json!({
            "kind": "cniCacheV1",
            "containerId": id,
            "config": BASE64_STANDARD.encode(serde_json::to_vec(&self.conf)?),
            "ifName": "eth0",
            "networkName": self.name,
            "netns": netns.path(),
            "cniArgs": [
                ["IgnoreUnknown", "1"],
                ["K8S_POD_NAMESPACE", "default"],
                ["K8S_POD_NAME", pod],
                ["K8S_POD_INFRA_CONTAINER_ID", id],
            ],
            "result": result,
        });
        fs::create_dir_all(CACHE)?;
        fs::write(self.cache(id), serde_json::to_vec(&entry)?)?;
        Ok(())
    }

    fn cache(&self, id: &str) -> PathBuf {
        Path::new(CACHE).join(format!("{}-{id}-eth0", self.name))
    }
}

/// A sandbox id as containerd makes them, from a name.
fn container_id(name: &str) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    (0..4u8)
        .map(|part| {
            let mut hasher = DefaultHasher::new();
            (name, part).hash(&mut hasher);
            format!("{:016x}", hasher.finish())
        })
        .collect()
}
