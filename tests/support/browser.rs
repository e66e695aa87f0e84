//! A real Chromium, driven over WebDriver.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use fantoccini::elements::Element;
use fantoccini::wd::{Capabilities, WebDriverCompatibleCommand};
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tempfile::TempDir;
use url::{ParseError, Url};

use crate::port::free_port;
use crate::server::{Server, Signal, kill};
use crate::{proc, program, wait};

/// How long a page may take to show what is waited for.
const PAGE_MAX: Duration = Duration::from_secs(60);
/// The key, as WebDriver writes it.
const ENTER: char = '\u{e007}';
/// A page longer than this is cut in the screenshot; in CSS pixels.
const SCREENSHOT_HEIGHT_MAX: f64 = 6000.0;

/// The flags for a machine without a display, a sandbox for root, or a network.
const FLAGS: [&str; 10] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
];

/// One browser with an empty profile.
#[derive(Debug)]
pub struct Browser {
    client: Client,
    driver: Server,
    _profile: TempDir,
}

impl Browser {
    /// Starts ChromeDriver and, through it, Chromium.
    ///
    /// # Errors
    /// When one of them is not installed or does not start.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(json!({})).await
    }

    /// A browser whose user has turned JavaScript off.
    ///
    /// # Errors
    /// As [`Browser::start`].
    pub async fn start_without_javascript() -> anyhow::Result<Self> {
        Self::start_with(json!({ "profile.managed_default_content_settings.javascript": 2 })).await
    }

    async fn start_with(preferences: Value) -> anyhow::Result<Self> {
        let chromium = program::installed("chromium", "chromium")?;
        let mut command = Command::new(program::installed("chromedriver", "chromium-driver")?);
        let port = free_port();
        command.arg(format!("--port={port}"));
        let mut driver = Server::spawn("chromedriver", command)?;
        driver.listens_on(&format!("127.0.0.1:{port}")).await?;

        let profile = TempDir::new()?;
        let mut flags: Vec<String> = FLAGS.map(str::to_owned).to_vec();
        flags.push(format!("--user-data-dir={}", profile.path().display()));
        let mut capabilities = Capabilities::new();
        capabilities.insert("goog:chromeOptions".to_owned(), json!({ "binary": chromium, "args": flags, "prefs": preferences }));
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .with_context(|| format!("no browser session; chromedriver says:\n{}", driver.log()))?;
        Ok(Self { client, driver, _profile: profile })
    }

    /// Opens a page and waits until it is loaded.
    ///
    /// # Errors
    /// When the browser cannot load it.
    pub async fn open(&self, url: &str) -> anyhow::Result<()> {
        self.client.goto(url).await.with_context(|| format!("open {url}"))
    }

    /// Loads the page again.
    ///
    /// # Errors
    /// When the browser cannot.
    pub async fn reload(&self) -> anyhow::Result<()> {
        self.client.refresh().await.context("reload")
    }

    /// The page's address.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub async fn url(&self) -> anyhow::Result<Url> {
        Ok(self.client.current_url().await?)
    }

    /// The first element that a CSS selector finds, as soon as there is one.
    ///
    /// # Errors
    /// When there is none within a minute; the error carries the page's text.
    pub async fn find(&self, css: &str) -> anyhow::Result<Element> {
        let what = format!("an element {css}");
        let found = wait::until(&what, PAGE_MAX, || async { self.client.find(Locator::Css(css)).await.ok() });
        match found.await {
            Ok(element) => Ok(element),
            Err(error) => {
                let url = self.client.current_url().await.map(String::from).unwrap_or_default();
                let text = self.text().await.unwrap_or_default();
                Err(error.context(format!("on {url}, which says:\n{text}")))
            }
        }
    }

    /// How many elements a CSS selector finds right now.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub async fn count(&self, css: &str) -> anyhow::Result<usize> {
        Ok(self.client.find_all(Locator::Css(css)).await?.len())
    }

    /// Clicks the first element that a CSS selector finds.
    ///
    /// # Errors
    /// When there is none, or something lies over it.
    pub async fn click(&self, css: &str) -> anyhow::Result<()> {
        let element = self.find(css).await?;
        element.click().await.with_context(|| format!("click {css}"))
    }

    /// Clicks a link or a button and waits until the page that it leads to is loaded.
    ///
    /// # Errors
    /// As [`Browser::click`], and when no other page is loaded within a minute.
    pub async fn follow(&self, css: &str) -> anyhow::Result<()> {
        self.evaluate("window.leftBehind = true").await?;
        self.click(css).await?;
        self.loaded().await.with_context(|| format!("after a click on {css}"))
    }

    /// Types into an input, presses Enter and waits until the page that it leads to is loaded.
    ///
    /// # Errors
    /// As [`Browser::fill`], and when no other page is loaded within a minute.
    pub async fn enter(&self, css: &str, text: &str) -> anyhow::Result<()> {
        self.evaluate("window.leftBehind = true").await?;
        self.fill(css, &format!("{text}{ENTER}")).await?;
        self.loaded().await.with_context(|| format!("after Enter in {css}"))
    }

    async fn loaded(&self) -> anyhow::Result<()> {
        wait::until("another page", PAGE_MAX, || async {
            let loaded = "!window.leftBehind && document.readyState === 'complete'";
            (self.evaluate(loaded).await.ok()? == true).then_some(())
        })
        .await
    }

    /// Replaces what an input holds.
    ///
    /// # Errors
    /// When there is no such input or it cannot be typed into.
    pub async fn fill(&self, css: &str, text: &str) -> anyhow::Result<()> {
        let element = self.find(css).await?;
        element.clear().await.with_context(|| format!("clear {css}"))?;
        element.send_keys(text).await.with_context(|| format!("type into {css}"))
    }

    /// What a person reads on the page.
    ///
    /// # Errors
    /// When there is no page.
    pub async fn text(&self) -> anyhow::Result<String> {
        let body = self.client.find(Locator::Css("body")).await?;
        Ok(body.text().await?)
    }

    /// What one element says, as soon as there is one.
    ///
    /// # Errors
    /// When there is none within a minute.
    pub async fn text_of(&self, css: &str) -> anyhow::Result<String> {
        // One round trip: an element found first and asked then may be of the page before.
        let expression = format!("document.querySelector({}).innerText", Value::from(css));
        wait::until(&format!("an element {css}"), PAGE_MAX, || async {
            Some(self.evaluate(&expression).await.ok()?.as_str()?.trim().to_owned())
        })
        .await
    }

    /// Waits until the page says `text`.
    ///
    /// # Errors
    /// When it does not within a minute; the error carries what it says instead.
    pub async fn says(&self, text: &str) -> anyhow::Result<()> {
        let what = format!("the words {text:?}");
        let found = wait::until(&what, PAGE_MAX, || async { self.text().await.ok()?.contains(text).then_some(()) });
        match found.await {
            Ok(()) => Ok(()),
            Err(error) => {
                let says = self.text().await.unwrap_or_default();
                Err(error.context(format!("on {}, which says:\n{says}", self.url().await?)))
            }
        }
    }

    /// Sets the visible area, in CSS pixels; below 600 the browser behaves like a phone.
    ///
    /// # Errors
    /// When the browser refuses.
    pub async fn set_viewport(&self, width: u32, height: u32) -> anyhow::Result<()> {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await?;
        Ok(())
    }

    /// The value of a JavaScript expression in the page.
    ///
    /// # Errors
    /// When it throws.
    pub async fn evaluate(&self, expression: &str) -> anyhow::Result<Value> {
        let script = format!("return ({expression});");
        self.client.execute(&script, Vec::new()).await.with_context(|| expression.to_owned())
    }

    /// Keeps a picture of the whole page as `tests/output/screenshots/NAME.png`.
    ///
    /// # Errors
    /// When it cannot be taken or written.
    pub async fn screenshot(&self, name: &str) -> anyhow::Result<PathBuf> {
        // What lies below the window is on the picture too, so it must not wait until somebody scrolls there.
        self.evaluate("document.querySelectorAll('img[loading=lazy]').forEach(image => { image.loading = 'eager' })").await?;
        wait::until("every picture to load", PAGE_MAX, || async {
            (self.evaluate("[...document.images].every(image => image.complete)").await.ok()? == true).then_some(())
        })
        .await?;
        let metrics = self.devtools("Page.getLayoutMetrics", json!({})).await?;
        let size = &metrics["cssContentSize"];
        let (Some(width), Some(height)) = (size["width"].as_f64(), size["height"].as_f64()) else {
            bail!("no size of the page in {metrics}");
        };
        let clip = json!({ "x": 0, "y": 0, "width": width, "height": height.min(SCREENSHOT_HEIGHT_MAX), "scale": 1 });
        let parameters = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let picture = self.devtools("Page.captureScreenshot", parameters).await?;
        let data = picture["data"].as_str().context("no data in the screenshot")?;
        let folder = program::output_folder().join("screenshots");
        fs::create_dir_all(&folder)?;
        let file = folder.join(format!("{name}.png"));
        fs::write(&file, BASE64.decode(data)?)?;
        Ok(file)
    }

    async fn devtools(&self, command: &'static str, parameters: Value) -> anyhow::Result<Value> {
        let name = command;
        let command = DevTools { command, parameters };
        self.client.issue_cmd(command).await.with_context(|| name)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // ChromeDriver leaves Chromium behind when it is told to end.
        for process in proc::descendants(self.driver.pid()) {
            kill(process, Signal::KILL);
        }
    }
}

/// A command of the DevTools protocol, which ChromeDriver passes on.
#[derive(Debug)]
struct DevTools {
    command: &'static str,
    parameters: Value,
}

impl WebDriverCompatibleCommand for DevTools {
    fn endpoint(&self, base_url: &Url, session_id: Option<&str>) -> Result<Url, ParseError> {
        let session = session_id.unwrap_or_default();
        base_url.join(&format!("session/{session}/goog/cdp/execute"))
    }

    fn method_and_body(&self, _request_url: &Url) -> (http::Method, Option<String>) {
        let body = json!({ "cmd": self.command, "params": self.parameters });
        (http::Method::POST, Some(body.to_string()))
    }
}
