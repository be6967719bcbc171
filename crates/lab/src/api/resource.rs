//! The resources that the API serves, and what a request's method and path ask of which of them.

use super::Status;

/// A resource that the API serves. One more is one more variant and one more row in [`Resource::info`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// `v1` Node.
    Nodes,
    /// `v1` Pod.
    Pods,
    /// `events.k8s.io/v1` Event.
    Events,
    /// `v1` Event. Unlike a real server, kept apart from `events.k8s.io`.
    CoreEvents,
}

/// What there is to know about a resource.
pub(crate) struct Info {
    /// Path in front of `/namespaces/…` or the plural.
    pub(crate) prefix: &'static str,
    pub(crate) api_version: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) namespaced: bool,
    pub(crate) has_status: bool,
    /// Field selectors that the server knows for it, besides name and namespace.
    pub(crate) fields: &'static [&'static str],
}

impl Resource {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Resource; 4] = [
        Resource::Nodes,
        Resource::Pods,
        Resource::Events,
        Resource::CoreEvents,
    ];

    pub(crate) const fn info(self) -> Info {
        match self {
            Resource::Nodes => Info {
                prefix: "/api/v1",
                api_version: "v1",
                kind: "Node",
                plural: "nodes",
                namespaced: false,
                has_status: true,
                fields: &["spec.unschedulable"],
            },
            Resource::Pods => Info {
                prefix: "/api/v1",
                api_version: "v1",
                kind: "Pod",
                plural: "pods",
                namespaced: true,
                has_status: true,
                fields: &[
                    "spec.nodeName",
                    "spec.hostNetwork",
                    "status.phase",
                    "status.podIP",
                ],
            },
            Resource::Events => Info {
                prefix: "/apis/events.k8s.io/v1",
                api_version: "events.k8s.io/v1",
                kind: "Event",
                plural: "events",
                namespaced: true,
                has_status: false,
                fields: &["reason", "type", "regarding.kind", "regarding.name"],
            },
            Resource::CoreEvents => Info {
                prefix: "/api/v1",
                api_version: "v1",
                kind: "Event",
                plural: "events",
                namespaced: true,
                has_status: false,
                fields: &["reason", "type", "involvedObject.kind", "involvedObject.name"],
            },
        }
    }
}

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// GET of a collection.
    List,
    /// GET of a collection with `watch=true`.
    Watch,
    /// GET of one object.
    Get,
    /// POST.
    Create,
    /// PUT.
    Update,
    /// PATCH.
    Patch,
    /// DELETE of one object.
    Delete,
}

impl Verb {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Verb; 7] = [
        Verb::List,
        Verb::Watch,
        Verb::Get,
        Verb::Create,
        Verb::Update,
        Verb::Patch,
        Verb::Delete,
    ];
}

/// What a request's path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) resource: Resource,
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    /// Whether it names the object's `status` subresource.
    pub(crate) status: bool,
}

impl Path {
    /// Reads `/api/v1/nodes/a/status` and the like; `None` for a path that this API does not serve.
    pub(crate) fn parse(path: &str) -> Option<Path> {
        Resource::ALL.into_iter().find_map(|resource| {
            let info = resource.info();
            let mut rest = path
                .strip_prefix(info.prefix)?
                .strip_prefix('/')?
                .split('/')
                .peekable();
            let namespace = match rest.peek() {
                Some(&"namespaces") if info.namespaced => {
                    rest.next();
                    Some(rest.next()?.to_owned())
                }
                _ => None,
            };
            if rest.next()? != info.plural {
                return None;
            }
            let name = rest.next().map(str::to_owned);
            let status = match rest.next() {
                None => false,
                Some("status") if info.has_status => true,
                Some(_) => return None,
            };
            let of_one_object = name.is_some();
            let complete = !info.namespaced || namespace.is_some() || !of_one_object;
            (complete && rest.next().is_none()).then_some(Path {
                resource,
                namespace,
                name,
                status,
            })
        })
    }

    /// The verb of `method` on this path.
    pub(crate) fn verb(&self, method: &str, watch: bool) -> Result<Verb, Status> {
        match (method, &self.name) {
            ("GET", None) if watch => Ok(Verb::Watch),
            ("GET", None) => Ok(Verb::List),
            ("GET", Some(_)) => Ok(Verb::Get),
            ("POST", None) => Ok(Verb::Create),
            ("PUT", Some(_)) => Ok(Verb::Update),
            ("PATCH", Some(_)) => Ok(Verb::Patch),
            ("DELETE", Some(_)) => Ok(Verb::Delete),
            _ => Err(Status::new(
                405,
                "the server does not allow this method on the requested resource",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let parse = |path: &str| Path::parse(path).map(|p| (p.resource, p.namespace, p.name, p.status));
        let text = |s: &str| Some(s.to_owned());
        assert_eq!(parse("/api/v1/nodes"), Some((Resource::Nodes, None, None, false)));
        assert_eq!(
            parse("/api/v1/nodes/a/status"),
            Some((Resource::Nodes, None, text("a"), true))
        );
        assert_eq!(parse("/api/v1/pods"), Some((Resource::Pods, None, None, false)));
        assert_eq!(
            parse("/api/v1/namespaces/x/pods/p"),
            Some((Resource::Pods, text("x"), text("p"), false))
        );
        assert_eq!(
            parse("/apis/events.k8s.io/v1/namespaces/x/events"),
            Some((Resource::Events, text("x"), None, false))
        );
        for unknown in [
            "/api/v1/pods/p",
            "/api/v1/nodes/a/log",
            "/api/v1/namespaces/x/nodes",
            "/api/v1/secrets",
        ] {
            assert_eq!(parse(unknown), None, "{unknown}");
        }
    }
}
