//! The example of docs/troubleshooting.md.

use std::path::Path;
use std::process::Command;

use routelet_model::{Family, vtep_mac};

use crate::pages::Script;
use crate::stage::Stage;

#[test]
fn the_example_is_what_the_program_says() {
    let mut script = Script::of("trace/docs.rs: the_example_is_what_the_program_says");
    let example = script.take("routelet trace");
    let stage = Stage::without_agent();
    stage
        .setup()
        .delete_fdb("vxlan.calico", vtep_mac("node-2", Family::V4))
        .unwrap();
    let programs = Path::new(env!("CARGO_BIN_EXE_routelet")).parent().unwrap();
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", &example.text])
        .env_clear()
        .env("PATH", programs)
        .env("ROUTELET_ADMIN_SOCKET", stage.socket());
    let output = stage.netns().run(|| shell.output()).unwrap().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(text(&output.stderr), "");
    let told = text(&output.stdout).replace(
        &stage.socket().display().to_string(),
        "/run/routelet/routelet.sock",
    );
    assert_eq!(told.lines().collect::<Vec<_>>(), example.shown);
    assert_eq!(output.status.code(), Some(1));
}
