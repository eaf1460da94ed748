//! An agent without any client: reqwest and five requests. Counts the files it was given.

use std::collections::BTreeMap;
use std::env;
use std::time::Duration;

use anyhow::{bail, Context, Result};
use reqwest::{Client, Method};
use serde_json::{json, Value};

/// Longer than the longest wait below: the answer needs a moment to come back.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// Who this process is, by the environment that the sidecar gave it.
struct Agent {
    url: String, // ends with /api
    token: String,
    id: String,
    agent_type: String,
    issue: String,
    project: String,
    http: Client,
}

impl Agent {
    fn from_environment() -> Result<Self> {
        let wanted = |name: &str| env::var(name).with_context(|| format!("{name} is not set"));
        Ok(Self {
            url: wanted("SIDECAR_URL")?,
            token: wanted("JWT_TOKEN")?,
            id: wanted("AGENT_ID")?,
            agent_type: wanted("AGENT_TYPE")?,
            issue: wanted("ISSUE_ID")?,
            project: wanted("PROJECT_ID")?,
            http: Client::builder().timeout(ANSWERED_WITHIN).build()?,
        })
    }

    async fn get(&self, path: &str) -> Result<Value> {
        self.ask(Method::GET, path, None).await
    }

    /// The sidecar keeps a repeat of what a restarted agent sends again from counting twice.
    async fn post(&self, path: &str, body: Value, what: &str) -> Result<Value> {
        let key = format!("{}:{what}", self.id);
        self.ask(Method::POST, path, Some((body, key))).await
    }

    /// One request, its answer as JSON; an error answer as an error with the sidecar's words.
    async fn ask(&self, method: Method, path: &str, sent: Option<(Value, String)>) -> Result<Value> {
        let mut request = self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&self.token);
        if let Some((body, key)) = sent {
            request = request.header("Idempotency-Key", key).json(&body);
        }
        let answer = request.send().await?;
        let status = answer.status();
        if !status.is_success() {
            bail!("{status}: {}", answer.text().await?);
        }
        Ok(answer.json().await?)
    }

    async fn run(&self) -> Result<()> {
        let answer = self.get(&format!("/context/{}/{}", self.issue, self.agent_type)).await?;
        let context = &answer["context"];
        let files = context["relevant_files"].as_array().context("a context without files")?;
        let mut languages = BTreeMap::new();
        for file in files {
            *languages.entry(file["language"].as_str().unwrap_or("none")).or_insert(0) += 1;
        }
        let branch = context["git_context"]["branch"].as_str().unwrap_or("no branch");
        println!("{} files on {branch}: {languages:?}", files.len());

        let result = json!({
            "agent_id": self.id, "agent_type": self.agent_type, "issue_id": self.issue, "project_id": self.project,
            "result": {"status": "success", "metrics": {"files": files.len()}},
        });
        let stored = self.post("/results", result, "result").await?;
        let event = json!({"topic": "coordination", "data": {"issue_id": self.issue, "result_id": stored["id"]}});
        self.post("/events/files_counted", event, "files_counted").await?;

        let go = self.get(&format!("/events/wait/go_on?timeout=20000&filter=issue_id:{}", self.issue)).await?;
        match go["events"][0]["publisher"].as_str() {
            Some(publisher) => println!("{publisher} said go on"),
            None => bail!("nobody said go on"),
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    Agent::from_environment()?.run().await
}
