//! `cargo xtask manifests`: what follows from the Helm chart, which are the plain manifests and the table of values in
//! the chart's README.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::Value;

use crate::run;

const CHART: &str = "charts/routelet";
const MANIFESTS: &str = "deploy/routelet.yaml";
/// Between these lines of the README is the table.
const BEGIN: &str = "<!-- made from values.yaml: cargo xtask manifests -->\n";
const END: &str = "<!-- end -->";
/// What precedes the plain manifests.
const HEAD: &str = "\
# routelet as the Helm chart installs it with its default values, made from the chart: cargo xtask manifests
#
#     kubectl apply -f deploy/routelet.yaml
";

/// What to do with the files.
#[derive(Debug, Args)]
pub(crate) struct ManifestsArgs {
    /// Change nothing, and fail where a file is not what the chart makes of it.
    #[arg(long)]
    check: bool,
}

/// Makes the files, or looks whether they are as they would be made. Needs `helm` in the PATH.
pub(crate) fn manifests(args: &ManifestsArgs) -> Result<ExitCode> {
    let root = workspace()?;
    let readme = root.join(CHART).join("README.md");
    let files = [
        (root.join(MANIFESTS), plain(&root)?),
        (readme, documented(&root)?),
    ];
    for (path, wanted) in files {
        let found = fs::read_to_string(&path).unwrap_or_default();
        if found == wanted {
            continue;
        }
        ensure!(
            !args.check,
            "{} is not what the chart makes of it: run cargo xtask manifests",
            path.display()
        );
        fs::write(&path, wanted).with_context(|| format!("writing {}", path.display()))?;
        run::complain(&format!("wrote {}", path.display()));
    }
    Ok(ExitCode::SUCCESS)
}

fn workspace() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    Ok(root.context("xtask lies in the workspace")?.to_owned())
}

/// The chart's objects without its hooks. Versions of Helm differ in blank lines and comments.
fn plain(root: &Path) -> Result<String> {
    let mut helm = Command::new("helm");
    helm.args(["template", "routelet", "--namespace", "kube-system", "--no-hooks"]);
    let output = helm
        .arg(root.join(CHART))
        .output()
        .context("helm cannot be run: install it, or put it into the PATH")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(output.status.success(), "helm template: {}", text(&output.stderr));
    let rendered = text(&output.stdout);
    let belongs = |line: &&str| {
        let comes_of_helm = line.starts_with("# Source: ") || line.ends_with("managed-by: Helm");
        !line.is_empty() && !comes_of_helm
    };
    let lines: Vec<_> = rendered.lines().filter(belongs).collect();
    Ok(format!("{HEAD}{}\n", lines.join("\n")))
}

/// The README with the table that the values make.
fn documented(root: &Path) -> Result<String> {
    let chart = root.join(CHART);
    let read = |name: &str| {
        let path = chart.join(name);
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    };
    let (readme, values) = (read("README.md")?, read("values.yaml")?);
    let (before, rest) = readme
        .split_once(BEGIN)
        .context("README.md has no place for the table")?;
    let (_, after) = rest
        .split_once(END)
        .context("README.md has no end of the table")?;
    Ok(format!("{before}{BEGIN}{}{END}{after}", table(&values)?))
}

/// A row for each value that has a comment above it. Each has one, or is a group of values.
fn table(text: &str) -> Result<String> {
    let values: Value = serde_saphyr::from_str(text).context("values.yaml")?;
    let mut table = "| value | default | |\n|---|---|---|\n".to_owned();
    // Names of the groups that the line is in, and the indentation up to which lines belong to the value above.
    let (mut groups, mut comment, mut inside) = (Vec::new(), Vec::new(), None);
    for line in text.lines() {
        let content = line.trim_start();
        let indent = line.len() - content.len();
        if content.is_empty() {
            comment.clear();
            continue;
        }
        if inside.is_some_and(|value| indent > value) {
            continue;
        }
        inside = None;
        if let Some(words) = content.strip_prefix("# ") {
            comment.push(words);
            continue;
        }
        let (name, rest) = content
            .split_once(':')
            .with_context(|| format!("no value in {line:?}"))?;
        groups.truncate(indent / 2);
        groups.push(name);
        if comment.is_empty() {
            ensure!(
                rest.is_empty(),
                "values.yaml says nothing about {}",
                groups.join(".")
            );
            continue;
        }
        inside = Some(indent);
        let default = values.pointer(&format!("/{}", groups.join("/")));
        let default = default.with_context(|| format!("no value {}", groups.join(".")))?;
        let words = comment.join(" ");
        table += &format!("| `{}` | `{default}` | {words} |\n", groups.join("."));
        comment.clear();
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_with_its_comment_is_a_row() {
        let values = "# About the file.\n\nimage:\n  # Where it is.\n  # In full.\n  name: x\n\n# How much.\nlimits:\n  cpu: 1\n  deep:\n    a: b\n\n# What else.\nlist: []\n";
        let wanted = "| value | default | |\n|---|---|---|\n\
            | `image.name` | `\"x\"` | Where it is. In full. |\n\
            | `limits` | `{\"cpu\":1,\"deep\":{\"a\":\"b\"}}` | How much. |\n\
            | `list` | `[]` | What else. |\n";
        assert_eq!(table(values).unwrap(), wanted);
        let error = table("image:\n  name: x\n").unwrap_err().to_string();
        assert_eq!(error, "values.yaml says nothing about image.name");
    }

    #[test]
    fn the_charts_readme_has_the_table_of_its_values() {
        let root = workspace().unwrap();
        let readme = fs::read_to_string(root.join(CHART).join("README.md")).unwrap();
        assert!(readme == documented(&root).unwrap(), "run cargo xtask manifests");
    }

    #[test]
    fn the_charts_version_is_the_programs() {
        let path = workspace().unwrap().join(CHART).join("Chart.yaml");
        let chart: Value = serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn the_plain_manifests_are_those_of_the_chart() {
        let root = workspace().unwrap();
        if Command::new("helm").arg("version").output().is_err() {
            routelet_lab::skip!("helm is not installed");
        }
        let found = fs::read_to_string(root.join(MANIFESTS)).unwrap();
        assert!(found == plain(&root).unwrap(), "run cargo xtask manifests");
    }
}
