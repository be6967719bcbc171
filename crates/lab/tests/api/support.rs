//! A served API, a real client of it, and the watcher's events as short texts.

use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::runtime::watcher::{self, Event};
use kube::{Client, Config, ResourceExt};
use routelet_lab::api::{Api, Counters, Resource, Server, objects};

/// Longer than anything here takes; only a failing test waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Lab {
    pub(crate) api: Api,
    pub(crate) server: Server,
    pub(crate) client: Client,
}

impl Lab {
    /// A cluster with these nodes.
    pub(crate) fn with_nodes(names: &[&str]) -> Lab {
        let api = Api::new();
        for name in names {
            api.create(Resource::Nodes, objects::node(*name)).unwrap();
        }
        let server = api.serve_locally().unwrap();
        let client = client(&server, None);
        Lab { api, server, client }
    }

    pub(crate) fn nodes(&self) -> kube::Api<Node> {
        kube::Api::all(self.client.clone())
    }

    pub(crate) fn pods(&self) -> kube::Api<Pod> {
        kube::Api::namespaced(self.client.clone(), "default")
    }

    pub(crate) fn watch_nodes(&self, config: watcher::Config) -> Events {
        Events::of(watcher::watcher(self.nodes(), config))
    }

    /// Waits on a thread of its own, so that the client goes on meanwhile.
    pub(crate) async fn wait_for(&self, condition: impl FnMut(&Counters) -> bool + Send + 'static) {
        let api = self.api.clone();
        let waited = tokio::task::spawn_blocking(move || api.wait_for(PATIENCE, condition))
            .await
            .unwrap();
        waited.unwrap_or_else(|counters| panic!("the condition does not come to hold: {counters:?}"));
    }
}

/// A client that neither retries by itself nor hides what it meets.
pub(crate) fn client(server: &Server, token: Option<&str>) -> Client {
    let mut config = Config::new(server.url().parse().unwrap());
    config.default_retry = false;
    config.auth_info.token = token.map(|token| token.to_owned().into());
    Client::try_from(config).unwrap()
}

/// The watcher's events.
pub(crate) struct Events(Pin<Box<dyn Stream<Item = String> + Send>>);

impl Events {
    pub(crate) fn of<K>(stream: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static) -> Events
    where
        K: ResourceExt + 'static,
    {
        let texts = stream.map(|event| match event {
            Ok(Event::Init) => "init".to_owned(),
            Ok(Event::InitApply(object)) => format!("listed {}", object.name_any()),
            Ok(Event::InitDone) => "done".to_owned(),
            Ok(Event::Apply(object)) => format!("applied {}", object.name_any()),
            Ok(Event::Delete(object)) => format!("deleted {}", object.name_any()),
            Err(error) => format!("error {error:?}"),
        });
        Events(Box::pin(texts))
    }

    pub(crate) async fn next(&mut self) -> String {
        let next = tokio::time::timeout(PATIENCE, self.0.next()).await;
        next.expect("no event comes").expect("a watcher never ends")
    }

    pub(crate) async fn expect(&mut self, expected: &[&str]) {
        for event in expected {
            assert_eq!(self.next().await, *event);
        }
    }

    /// The next event is an error that mentions `part`.
    pub(crate) async fn expect_error(&mut self, part: &str) {
        let event = self.next().await;
        assert!(
            event.starts_with("error") && event.contains(part),
            "{event:?} should mention {part:?}"
        );
    }

    /// Errors may come, then these events, whole and in order.
    pub(crate) async fn recover(&mut self, expected: &[&str]) {
        let mut event = self.next().await;
        while event.starts_with("error") {
            event = self.next().await;
        }
        let (first, rest) = expected.split_first().unwrap();
        assert_eq!(event, *first);
        self.expect(rest).await;
    }
}
