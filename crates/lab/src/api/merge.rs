//! Patches: JSON merge patch (RFC 7386), and the part of Kubernetes' strategic merge that joins lists by key.

use serde_json::{Map, Value};

/// How lists are patched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Merge {
    /// RFC 7386: a list replaces a list.
    Json,
    /// Lists with a merge key are joined by it, all others replaced. Also stands in for server-side apply.
    Strategic,
}

/// The key that the elements of a list are known by (`patchMergeKey` in the Kubernetes API types).
fn merge_key(list: &str) -> Option<&'static str> {
    Some(match list {
        "conditions" | "addresses" => "type",
        "podIPs" | "hostIPs" => "ip",
        "containers" | "initContainers" | "volumes" | "env" | "imagePullSecrets" => "name",
        "taints" => "key",
        "ownerReferences" => "uid",
        _ => return None,
    })
}

/// Lists of plain values to which a strategic patch adds.
fn is_set(list: &str) -> bool {
    matches!(list, "finalizers" | "podCIDRs")
}

/// Applies `patch` to `target`.
pub(crate) fn merge(target: &mut Map<String, Value>, patch: Map<String, Value>, how: Merge) {
    for (key, new) in patch {
        if how == Merge::Strategic && key.starts_with('$') {
            continue; // directives; the one that matters, `$patch: delete`, is read where the list is
        }
        match (target.get_mut(&key), new) {
            (_, Value::Null) => {
                target.remove(&key);
            }
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new, how),
            (_, Value::Object(new)) => {
                let mut fresh = Map::new();
                merge(&mut fresh, new, how);
                target.insert(key, Value::Object(fresh));
            }
            (Some(Value::Array(old)), Value::Array(new)) if how == Merge::Strategic => {
                merge_list(&key, old, new);
            }
            (_, new) => {
                target.insert(key, new);
            }
        }
    }
}

fn merge_list(list: &str, old: &mut Vec<Value>, new: Vec<Value>) {
    if is_set(list) {
        for value in new {
            if !old.contains(&value) {
                old.push(value);
            }
        }
        return;
    }
    let Some(key) = merge_key(list) else {
        *old = new;
        return;
    };
    for element in new {
        let found = old
            .iter()
            .position(|candidate| candidate.get(key) == element.get(key));
        match (found, element) {
            (found, element) if element.get("$patch").and_then(Value::as_str) == Some("delete") => {
                if let Some(index) = found {
                    old.remove(index);
                }
            }
            (Some(index), Value::Object(element)) => {
                if let Some(Value::Object(existing)) = old.get_mut(index) {
                    merge(existing, element, Merge::Strategic);
                }
            }
            (_, element) => old.push(element),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(how: Merge, target: Value, patch: Value) -> Value {
        let (Value::Object(mut target), Value::Object(patch)) = (target, patch) else {
            panic!("objects")
        };
        merge(&mut target, patch, how);
        Value::Object(target)
    }

    #[test]
    fn json_merge_replaces_lists_and_null_removes() {
        let target = json!({"a": {"b": 1, "c": 2}, "conditions": [{"type": "Ready"}]});
        let patch = json!({"a": {"b": null, "d": {"e": null, "f": 3}}, "conditions": [{"type": "X"}]});
        assert_eq!(
            patched(Merge::Json, target, patch),
            json!({"a": {"c": 2, "d": {"f": 3}}, "conditions": [{"type": "X"}]})
        );
    }

    #[test]
    fn strategic_merge_joins_conditions_by_type() {
        let target =
            json!({"conditions": [{"type": "Ready", "status": "True"}, {"type": "Old"}], "args": [1]});
        let patch = json!({
            "$setElementOrder/conditions": [],
            "conditions": [{"type": "Ready", "reason": "r"}, {"type": "New"}, {"type": "Old", "$patch": "delete"}],
            "args": [2],
        });
        assert_eq!(
            patched(Merge::Strategic, target, patch),
            json!({
                "conditions": [{"type": "Ready", "status": "True", "reason": "r"}, {"type": "New"}],
                "args": [2],
            })
        );
    }
}
