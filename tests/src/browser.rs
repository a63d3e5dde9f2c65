//! A real headless Chromium, driven over WebDriver (W3C) by its own ChromeDriver. It sees the
//! network of the thread that starts it: a laboratory's, and nothing beyond.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

const CHROMIUM: &str = "/usr/bin/chromium";
const DRIVER: &str = "/usr/bin/chromedriver";
/// In a network of its own any port is free.
const PORT: u16 = 9515;
/// Long enough for a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

/// The browser with one window. It ends when dropped.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    http: ureq::Agent,
    session: String,
    _profile: tempfile::TempDir,
}

/// Whether there is a browser here; if not, the mend.
pub fn available() -> Result<(), String> {
    for program in [CHROMIUM, DRIVER] {
        if !Path::new(program).exists() {
            return Err(format!("no {program}: run `cargo xtask setup`"));
        }
    }
    Ok(())
}

/// The keys that have no character (WebDriver, table of normalised keys).
#[expect(missing_docs, reason = "their names say it")]
pub mod key {
    pub const ENTER: &str = "\u{e007}";
    pub const ESCAPE: &str = "\u{e00c}";
    pub const END: &str = "\u{e010}";
    pub const HOME: &str = "\u{e011}";
    pub const LEFT: &str = "\u{e012}";
    pub const UP: &str = "\u{e013}";
    pub const RIGHT: &str = "\u{e014}";
    pub const DOWN: &str = "\u{e015}";
}

impl Browser {
    /// Starts the browser in this thread's namespaces.
    pub fn start() -> Result<Self> {
        let profile = tempfile::tempdir()?;
        let mut driver = Command::new(DRIVER)
            .arg(format!("--port={PORT}"))
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("can't start chromedriver")?;
        let http = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(2 * PATIENCE))
            .build()
            .new_agent();
        let data = profile.path().join("profile");
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
        ];
        let mut arguments: Vec<String> = arguments.map(String::from).into();
        arguments.push(format!("--user-data-dir={}", data.display()));
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "binary": CHROMIUM, "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        } } });
        let deadline = Instant::now() + PATIENCE;
        let session = loop {
            match send(&http, "POST", "/session", &wanted) {
                Ok(session) => break session,
                Err(error) if Instant::now() > deadline || driver.try_wait()?.is_some() => {
                    let _ = driver.kill();
                    let _ = driver.wait();
                    return Err(error.context("no browser"));
                }
                Err(_) => thread::sleep(Duration::from_millis(50)),
            }
        };
        let session = session["sessionId"].as_str().context("no session")?;
        Ok(Self {
            driver,
            http,
            session: session.to_owned(),
            _profile: profile,
        })
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let path = format!("/session/{}/{path}", self.session);
        send(&self.http, method, &path, body)
    }

    /// A command of the DevTools protocol.
    pub fn devtools(&self, command: &str, parameters: Value) -> Result<Value> {
        let body = json!({ "cmd": command, "params": parameters });
        self.call("POST", "goog/cdp/execute", &body)
    }

    /// Opens a page and waits until it is loaded.
    pub fn open(&self, url: &str) -> Result<()> {
        self.call("POST", "url", &json!({ "url": url })).map(drop)
    }

    /// Where it is now.
    pub fn url(&self) -> Result<String> {
        let url = self.call("GET", "url", &Value::Null)?;
        Ok(url.as_str().unwrap_or_default().to_owned())
    }

    /// The value of an expression in the page.
    pub fn value(&self, expression: &str) -> Result<Value> {
        let body = json!({ "script": format!("return ({expression});"), "args": [] });
        self.call("POST", "execute/sync", &body)
            .with_context(|| format!("in `{expression}`"))
    }

    /// The text of the element of this selector, as it is to be seen.
    pub fn text(&self, selector: &str) -> Result<String> {
        let element = self.element(selector)?;
        let text = self.call("GET", &format!("element/{element}/text"), &Value::Null)?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// Clicks as a person does: on what is to be seen there.
    pub fn click(&self, selector: &str) -> Result<()> {
        let element = self.element(selector)?;
        let path = format!("element/{element}/click");
        self.call("POST", &path, &json!({})).map(drop)
    }

    /// Presses keys, one after the other, where the focus is.
    pub fn press(&self, keys: &[&str]) -> Result<()> {
        let actions: Vec<Value> = { keys.iter() }
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key })))
            .collect();
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": actions });
        let body = json!({ "actions": [keyboard] });
        self.call("POST", "actions", &body).map(drop)
    }

    fn element(&self, selector: &str) -> Result<String> {
        let body = json!({ "using": "css selector", "value": selector });
        let found = self.call("POST", "element", &body)?;
        let id = { found.as_object() }.and_then(|found| found.values().next()?.as_str());
        Ok(id.context("no element")?.to_owned())
    }

    /// Waits until an expression in the page is true.
    pub fn wait(&self, what: &str, expression: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.value(expression)? != true {
            if Instant::now() > deadline {
                let text = self.value("document.body.innerText.slice(0, 3000)")?;
                bail!("waited for {what}; the page says:\n{text}");
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// The window's size in CSS pixels, and whether its user likes it dark.
    pub fn look(&self, width: u32, height: u32, dark: bool) -> Result<()> {
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", size)?;
        let scheme = if dark { "dark" } else { "light" };
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", features)?;
        Ok(())
    }

    /// Whether pages may run scripts, from the next page on.
    pub fn scripts(&self, on: bool) -> Result<()> {
        let parameters = json!({ "value": !on });
        self.devtools("Emulation.setScriptExecutionDisabled", parameters)?;
        Ok(())
    }

    /// A picture of the page as PNG: of the window, or of all of it.
    pub fn picture(&self, whole: bool) -> Result<Vec<u8>> {
        let parameters = json!({ "format": "png", "captureBeyondViewport": whole });
        let mut parameters = parameters;
        if whole {
            let size = self.devtools("Page.getLayoutMetrics", json!({}))?;
            let size = &size["cssContentSize"];
            parameters["clip"] = json!({
                "x": 0, "y": 0, "scale": 1, "width": size["width"],
                // Beyond this Chromium draws nothing.
                "height": size["height"].as_f64().unwrap_or(0.0).min(16_000.0),
            });
        }
        let picture = self.devtools("Page.captureScreenshot", parameters)?;
        let data = picture["data"].as_str().context("no picture")?;
        Ok(BASE64_STANDARD.decode(data)?)
    }

    /// The same, into a file.
    pub fn picture_into(&self, whole: bool, path: &Path) -> Result<()> {
        fs::write(path, self.picture(whole)?).with_context(|| format!("can't write {path:?}"))
    }

    /// Fails if the console has anything to say, the page's policy was violated, or
    /// anything was fetched that isn't below `origin`, since the last time it was asked.
    pub fn ensure_quiet(&self, origin: &str) -> Result<()> {
        let mut console = self.call("POST", "se/log", &json!({ "type": "browser" }))?;
        // The browser's own first page is none of ours.
        let is_own = |entry: &Value| entry["message"].as_str().is_some_and(is_the_browsers);
        console
            .as_array_mut()
            .context("no console")?
            .retain(|entry| !is_own(entry));
        ensure!(console == json!([]), "the console says {console:#}");
        let messages = self.call("POST", "se/log", &json!({ "type": "performance" }))?;
        let messages = messages.as_array().context("no log")?;
        let mut asked = 0;
        for message in messages {
            let text = message["message"].as_str().unwrap_or_default();
            let event: Value = serde_json::from_str(text)?;
            let (method, parameters) = (&event["message"]["method"], &event["message"]["params"]);
            let said_by = match method.as_str().unwrap_or_default() {
                "Network.requestWillBeSent" => &parameters["documentURL"],
                "Runtime.exceptionThrown" => &parameters["exceptionDetails"]["url"],
                "Audits.issueAdded" => &Value::Null,
                _ => continue,
            };
            let said_by = said_by.as_str().unwrap_or_default();
            if is_the_browsers(said_by) {
                continue;
            }
            ensure!(*method == "Network.requestWillBeSent", "{event:#}");
            let url = parameters["request"]["url"].as_str().unwrap_or_default();
            let mut allowed = [origin, "data:", "about:"].into_iter();
            ensure!(
                allowed.any(|allowed| url.starts_with(allowed)),
                "the page {said_by} asks for {url}"
            );
            asked += 1;
        }
        ensure!(asked > 0, "nothing was asked for: the log is off");
        Ok(())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends Chromium too, which the driver's own end would not.
        let _ = send(
            &self.http,
            "DELETE",
            &format!("/session/{}", self.session),
            &Value::Null,
        );
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// Whether this is of `chrome://new-tab-page`, with which a window begins, or a frame in it.
fn is_the_browsers(url: &str) -> bool {
    url.starts_with("chrome://") || url.starts_with("chrome-untrusted://")
}

/// One command to the driver, and its answer's value.
fn send(http: &ureq::Agent, method: &str, path: &str, body: &Value) -> Result<Value> {
    let url = format!("http://127.0.0.1:{PORT}{path}");
    let mut answer = match method {
        "GET" => http.get(&url).call()?,
        "DELETE" => http.delete(&url).call()?,
        _ => http.post(&url).send(body.to_string())?,
    };
    let status = answer.status();
    let text = answer
        .body_mut()
        .with_config()
        .limit(256 << 20)
        .read_to_string()?;
    let value: Value = serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))?;
    ensure!(status.is_success(), "{path}: {}", value["value"]["message"]);
    Ok(value["value"].clone())
}
