//! Field selectors: which objects a list or a watch is about.

use serde_json::{Map, Value};

use super::{Resource, Status};

/// The values of an object's selectable fields, taken once when it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields(Vec<(&'static str, String)>);

impl Fields {
    /// Reads the fields that `resource` can be selected by. An absent field reads as the empty string, as in
    /// Kubernetes, and an absent boolean as `false`.
    pub(crate) fn of(resource: Resource, object: &Map<String, Value>) -> Fields {
        let read = |path: &'static str| {
            let (first, rest) = path.split_once('.').unwrap_or((path, ""));
            let top = object.get(first);
            let value = if rest.is_empty() {
                top
            } else {
                top.and_then(|v| v.get(rest))
            };
            let text = match value {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Bool(flag)) => flag.to_string(),
                _ if matches!(path, "spec.unschedulable" | "spec.hostNetwork") => "false".to_owned(),
                _ => String::new(),
            };
            (path, text)
        };
        Fields(selectable(resource).map(read).collect())
    }

    fn get(&self, path: &str) -> &str {
        self.0
            .iter()
            .find(|(known, _)| *known == path)
            .map_or("", |(_, value)| value)
    }
}

fn selectable(resource: Resource) -> impl Iterator<Item = &'static str> {
    ["metadata.name", "metadata.namespace"]
        .into_iter()
        .chain(resource.info().fields.iter().copied())
}

/// All of these terms must hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selector(Vec<Term>);

#[derive(Clone, Debug)]
struct Term {
    field: &'static str,
    value: String,
    equal: bool,
}

impl Selector {
    /// Reads `a.b=x,c!=y` (`==` is `=`), with the request's namespace as one more term.
    ///
    /// # Errors
    /// 400 for a field that the server does not know for this resource, as a real one answers.
    pub(crate) fn parse(resource: Resource, namespace: Option<&str>, text: &str) -> Result<Selector, Status> {
        let mut terms = Vec::new();
        if let Some(namespace) = namespace {
            terms.push(Term {
                field: "metadata.namespace",
                value: namespace.to_owned(),
                equal: true,
            });
        }
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (field, value, equal) = if let Some((field, value)) = part.split_once("!=") {
                (field, value, false)
            } else if let Some((field, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (field, value, true)
            } else {
                let message = format!("invalid selector: '{text}'; can't understand '{part}'");
                return Err(Status::bad_request(message));
            };
            let Some(field) = selectable(resource).find(|known| *known == field) else {
                return Err(Status::bad_request(format!("field label not supported: {field}")));
            };
            terms.push(Term {
                field,
                value: value.to_owned(),
                equal,
            });
        }
        Ok(Selector(terms))
    }

    pub(crate) fn matches(&self, fields: &Fields) -> bool {
        self.0
            .iter()
            .all(|term| (fields.get(term.field) == term.value) == term.equal)
    }

    /// Whether it selects everything.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn terms() {
        let pod = json!({
            "metadata": {"name": "p", "namespace": "x"},
            "spec": {"nodeName": "a"},
            "status": {"phase": "Running"},
        });
        let fields = Fields::of(Resource::Pods, pod.as_object().unwrap());
        let matches =
            |text| Selector::parse(Resource::Pods, None, text).map(|selector| selector.matches(&fields));
        assert_eq!(matches(""), Ok(true));
        assert_eq!(matches("spec.nodeName=a,status.phase!=Failed"), Ok(true));
        assert_eq!(matches("spec.nodeName==b"), Ok(false));
        assert_eq!(matches("metadata.name!=p"), Ok(false));
        assert_eq!(matches("status.podIP="), Ok(true));
        assert_eq!(matches("spec.hostNetwork=false"), Ok(true));
        assert_eq!(
            matches("spec.color=red").unwrap_err().message,
            "field label not supported: spec.color"
        );
        assert_eq!(matches("nonsense").unwrap_err().code, 400);
        assert!(
            !Selector::parse(Resource::Pods, Some("y"), "")
                .unwrap()
                .matches(&fields)
        );
    }
}
