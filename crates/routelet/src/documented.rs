//! Parts of docs/ that are made from the source: looked at by tests, and written by them for `cargo xtask docs`.

use std::path::Path;

const BEGIN: &str = "<!-- made from the source: cargo xtask docs -->\n";
const END: &str = "<!-- end -->\n";

/// Compares the part of a page that is made from the source with what it should be. With `ROUTELET_WRITE_DOCS` in the
/// environment it writes it in place of that.
pub(crate) fn compare(page: &str, part: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs")
        .join(page);
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (written, after) = rest.split_once(END).unwrap();
    if std::env::var_os("ROUTELET_WRITE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{part}{END}{after}")).unwrap();
    } else {
        assert!(
            written == part,
            "docs/{page} is out of step: run cargo xtask docs"
        );
    }
}
