//! An agent as an outsider writes one in Rust: reqwest, anyhow, the environment, and nothing of ours.

use std::env;

use anyhow::{ensure, Context, Result};
use reqwest::header::{HeaderMap, HeaderValue, AUTHORIZATION};
use reqwest::Client;
use serde::{Deserialize, Serialize};
use serde_json::{json, Value};

/// What it reads of a context; fields that it does not know are let through.
#[derive(Debug, Deserialize)]
struct Given {
    issue_id: String,
    agent_type: String,
    context: Value,
}

#[derive(Debug, Serialize)]
struct Outcome {
    status: &'static str,
    files_created: Vec<String>,
    decisions: Vec<String>,
    metrics: Value,
}

struct Specialist {
    id: String,
    kind: String,
    issue: String,
    project: String,
    url: String,
    headers: HeaderMap,
    http: Client,
}

impl Specialist {
    fn new() -> Result<Self> {
        let bearer = format!("Bearer {}", env::var("JWT_TOKEN")?);
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&bearer)?);
        Ok(Self {
            id: env::var("AGENT_ID")?,
            kind: env::var("AGENT_TYPE")?,
            issue: env::var("ISSUE_ID")?,
            project: env::var("PROJECT_ID")?,
            url: env::var("SIDECAR_URL")?,
            headers,
            http: Client::new(),
        })
    }

    async fn read(&self) -> Result<Given> {
        let url = format!("{}/context/{}/{}", self.url, self.issue, self.kind);
        let answer = self.http.get(url).headers(self.headers.clone()).send().await?;
        Ok(answer.error_for_status()?.json().await?)
    }

    async fn send(&self, path: &str, body: Value) -> Result<Value> {
        let url = format!("{}{path}", self.url);
        let answer = self.http.post(url).headers(self.headers.clone()).json(&body).send().await?;
        Ok(answer.error_for_status()?.json().await?)
    }

    async fn run(&self) -> Result<()> {
        let given = self.read().await.context("no context")?;
        ensure!((&given.issue_id, &given.agent_type) == (&self.issue, &self.kind), "another's context");
        let outcome = Outcome {
            status: "success",
            files_created: vec!["src/main.rs".to_owned()],
            decisions: vec![format!("Saw {}", given.context["project_structure"]["total_files"])],
            metrics: json!({"test_coverage": 95.0}),
        };
        let result = json!({
            "agent_id": self.id, "agent_type": self.kind, "issue_id": self.issue, "project_id": self.project,
            "result": outcome,
        });
        let stored = self.send("/results", result).await.context("not stored")?;
        log::info!("stored {}", stored["id"]);
        let event = json!({
            "event_type": "implementation_complete", "publisher": self.id, "topic": "implementation",
            "data": {"issue_id": self.issue, "status": outcome.status},
        });
        self.send("/events/implementation_complete", event).await.context("not published")?;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    env_logger::init();
    Specialist::new()?.run().await
}
