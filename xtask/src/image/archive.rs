//! The image as an archive that both container runtimes and Docker take: an OCI image layout (image-spec,
//! image-layout.md) with Docker's manifest.json beside it. The same programs give the same bytes.

use std::io::Write;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// Directory of the programs.
const DIRECTORY: &str = "bin";
const BLOBS: &str = "blobs/sha256";

/// A program and its name in the image.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) name: &'static str,
    pub(super) bytes: Vec<u8>,
}

/// All that an image is made of.
#[derive(Debug, Clone)]
pub(super) struct Image {
    /// Complete, with registry and tag.
    pub(super) name: &'static str,
    /// As Go names it.
    pub(super) architecture: &'static str,
    pub(super) version: &'static str,
    /// The first is what a container runs.
    pub(super) programs: Vec<Program>,
}

impl Image {
    /// The archive's bytes.
    pub(super) fn archive(&self) -> Result<Vec<u8>> {
        let layer = self.layer()?;
        let packed = compress(&layer)?;
        let config = bytes_of(&self.config(&layer)?);
        let manifest = bytes_of(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &packed)],
        }));
        let (_, tag) = self.name.rsplit_once(':').context("an image's name has a tag")?;
        let mut named = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
        named["platform"] = json!({ "architecture": self.architecture, "os": "linux" });
        named["annotations"] = json!({
            "io.containerd.image.name": self.name,
            "org.opencontainers.image.ref.name": tag,
        });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [named],
        });
        let docker = json!([{
            "Config": blob(&config),
            "RepoTags": [self.name.trim_start_matches("docker.io/library/")],
            "Layers": [blob(&packed)],
        }]);
        let layout = json!({ "imageLayoutVersion": "1.0.0" });

        let mut files = vec![
            (blob(&config), config),
            (blob(&manifest), manifest),
            (blob(&packed), packed),
            ("index.json".to_owned(), bytes_of(&index)),
            ("manifest.json".to_owned(), bytes_of(&docker)),
            ("oci-layout".to_owned(), bytes_of(&layout)),
        ];
        files.sort();
        let mut archive = Builder::new(Vec::new());
        for directory in ["blobs/", "blobs/sha256/"] {
            append(&mut archive, directory, EntryType::Directory, 0o755, &[])?;
        }
        for (path, bytes) in &files {
            append(&mut archive, path, EntryType::Regular, 0o644, bytes)?;
        }
        Ok(archive.into_inner()?)
    }

    /// The root file system, as a tar archive.
    fn layer(&self) -> Result<Vec<u8>> {
        let mut layer = Builder::new(Vec::new());
        append(
            &mut layer,
            &format!("{DIRECTORY}/"),
            EntryType::Directory,
            0o755,
            &[],
        )?;
        for program in &self.programs {
            let path = format!("{DIRECTORY}/{}", program.name);
            append(&mut layer, &path, EntryType::Regular, 0o755, &program.bytes)?;
        }
        Ok(layer.into_inner()?)
    }

    /// The image's configuration, which names the layer as it is before compression.
    fn config(&self, layer: &[u8]) -> Result<Value> {
        let first = self.programs.first().context("an image without a program")?;
        Ok(json!({
            "architecture": self.architecture,
            "os": "linux",
            "config": {
                "Entrypoint": [format!("/{DIRECTORY}/{}", first.name)],
                "Env": [format!("PATH=/{DIRECTORY}")],
                "Labels": {
                    "org.opencontainers.image.title": first.name,
                    "org.opencontainers.image.version": self.version,
                    "org.opencontainers.image.licenses": env!("CARGO_PKG_LICENSE"),
                },
            },
            "rootfs": { "type": "layers", "diff_ids": [digest(layer)] },
        }))
    }
}

/// Owned by root, and made at no time.
fn append(
    archive: &mut Builder<Vec<u8>>,
    path: &str,
    kind: EntryType,
    mode: u32,
    bytes: &[u8],
) -> Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(bytes.len() as u64);
    archive
        .append_data(&mut header, path, bytes)
        .with_context(|| format!("putting {path} into the archive"))
}

fn compress(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut packed = GzBuilder::new().write(Vec::new(), Compression::best());
    packed.write_all(bytes)?;
    Ok(packed.finish()?)
}

/// The fields of an object are in the order of their names.
fn bytes_of(document: &Value) -> Vec<u8> {
    document.to_string().into_bytes()
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() })
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}

fn blob(bytes: &[u8]) -> String {
    format!("{BLOBS}/{}", hex(bytes))
}

fn hex(bytes: &[u8]) -> String {
    let sum = Sha256::digest(bytes);
    sum.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use super::*;

    fn image() -> Image {
        let program = |name, text: &str| Program {
            name,
            bytes: text.repeat(1000).into_bytes(),
        };
        Image {
            name: "docker.io/library/routelet:dev",
            architecture: "arm64",
            version: "1.2.3",
            programs: vec![program("routelet", "agent"), program("routelet-cni", "plugin")],
        }
    }

    /// Path, mode and content of all entries, in their order.
    fn entries(archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut archive = tar::Archive::new(archive);
        let read = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let header = entry.header();
            assert_eq!(header.mtime().unwrap(), 0);
            assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
            let mode = header.mode().unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (path, mode, bytes)
        });
        read.collect()
    }

    fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        entries(archive)
            .into_iter()
            .map(|(path, _, bytes)| (path, bytes))
            .collect()
    }

    /// What a descriptor points to; its size is right.
    fn follow<'a>(files: &'a BTreeMap<String, Vec<u8>>, descriptor: &Value) -> &'a [u8] {
        let digest = descriptor["digest"].as_str().unwrap();
        let bytes = &files[&digest.replace("sha256:", "blobs/sha256/")];
        assert_eq!(descriptor["size"], bytes.len());
        assert_eq!(super::digest(bytes), digest);
        bytes
    }

    #[test]
    fn the_layout_leads_from_the_index_to_the_programs() {
        let files = files(&image().archive().unwrap());
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
        assert_eq!(json(&files["oci-layout"])["imageLayoutVersion"], "1.0.0");
        let index = json(&files["index.json"]);
        let named = &index["manifests"][0];
        assert_eq!(
            named["annotations"]["io.containerd.image.name"],
            "docker.io/library/routelet:dev"
        );
        assert_eq!(named["platform"]["architecture"], "arm64");
        let manifest = json(follow(&files, named));
        let config = json(follow(&files, &manifest["config"]));
        assert_eq!(config["config"]["Entrypoint"], json!(["/bin/routelet"]));
        assert_eq!(config["architecture"], "arm64");

        let mut layer = Vec::new();
        let packed = follow(&files, &manifest["layers"][0]);
        flate2::read::GzDecoder::new(packed)
            .read_to_end(&mut layer)
            .unwrap();
        assert_eq!(config["rootfs"]["diff_ids"], json!([digest(&layer)]));
        let wanted = [
            ("bin/".to_owned(), 0o755, Vec::new()),
            ("bin/routelet".to_owned(), 0o755, b"agent".repeat(1000)),
            ("bin/routelet-cni".to_owned(), 0o755, b"plugin".repeat(1000)),
        ];
        assert_eq!(entries(&layer), wanted);

        let docker = json(&files["manifest.json"]);
        assert_eq!(docker[0]["RepoTags"], json!(["routelet:dev"]));
        for path in [&docker[0]["Config"], &docker[0]["Layers"][0]] {
            assert!(files.contains_key(path.as_str().unwrap()), "{path}");
        }
    }

    #[test]
    fn the_same_programs_give_the_same_bytes_and_others_give_others() {
        let archive = image().archive().unwrap();
        assert_eq!(archive, image().archive().unwrap());
        let mut other = image();
        other.programs[1].bytes[0] ^= 1;
        assert_ne!(archive, other.archive().unwrap());
        let paths: Vec<_> = entries(&archive).into_iter().map(|(path, ..)| path).collect();
        assert!(paths.is_sorted(), "{paths:?}");
    }
}
