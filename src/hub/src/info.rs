//! What the hub says about a commit: `GET /api/models/REPO/revision/REVISION?blobs=true`.

use serde::Deserialize;

use crate::digest::Digest;
use crate::error::{HubError, Result};
use crate::names::{Commit, FileName};

/// Most files of a repository that are looked at.
const MAX_FILES: usize = 20_000;

/// A commit of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RepoInfo {
    pub(crate) commit: Commit,
    /// Every file of the commit.
    pub(crate) files: Vec<RemoteFile>,
    /// Name of the licence, as the card has it.
    pub(crate) licence: Option<String>,
}

/// A file as the hub lists it. Old mirrors leave size and checksum out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemoteFile {
    pub(crate) name: FileName,
    pub(crate) size: Option<u64>,
    pub(crate) digest: Option<Digest>,
}

#[derive(Deserialize)]
struct RawInfo {
    sha: String,
    #[serde(default)]
    siblings: Vec<RawFile>,
    #[serde(rename = "cardData", default)]
    card: Option<serde_json::Value>,
    #[serde(default)]
    tags: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawFile {
    #[serde(rename = "rfilename", alias = "path")]
    name: String,
    size: Option<u64>,
    #[serde(alias = "oid")]
    blob_id: Option<String>,
    lfs: Option<RawLfs>,
}

#[derive(Deserialize)]
struct RawLfs {
    #[serde(alias = "oid")]
    sha256: String,
    size: Option<u64>,
}

impl RepoInfo {
    /// From the body of the answer.
    pub(crate) fn parse(body: &[u8]) -> Result<Self> {
        let raw: RawInfo = serde_json::from_slice(body).map_err(|error| {
            HubError::answer(format!(
                "the hub's answer about the repository is not the expected JSON: {error}"
            ))
        })?;
        if raw.siblings.len() > MAX_FILES {
            return Err(HubError::answer(format!(
                "the repository lists {} files, expected {MAX_FILES} at most",
                raw.siblings.len()
            )));
        }
        let mut files = raw.siblings.into_iter().map(RawFile::check).collect::<Result<Vec<_>>>()?;
        files.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(pair) = files.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(HubError::answer(format!("the repository lists {} twice", pair[0].name)));
        }
        let licence = raw.card.as_ref().and_then(licence_of_card);
        let licence = licence
            .or_else(|| raw.tags.iter().find_map(|tag| tag.strip_prefix("license:")).map(str::to_owned))
            .map(|name| name.chars().filter(|c| !c.is_control()).take(80).collect());
        Ok(Self { commit: raw.sha.parse()?, files, licence })
    }
}

impl RawFile {
    fn check(self) -> Result<RemoteFile> {
        let name: FileName = self.name.parse()?;
        let (digest, size) = match self.lfs {
            Some(lfs) => (Some(lfs.sha256), lfs.size.or(self.size)),
            None => (self.blob_id, self.size),
        };
        let digest = digest.map(|text| text.parse::<Digest>()).transpose();
        let digest = digest.map_err(|error| HubError::answer(format!("{name}: {error}")))?;
        Ok(RemoteFile { name, size, digest })
    }
}

/// `license`, or for `other` the name that it goes by.
fn licence_of_card(card: &serde_json::Value) -> Option<String> {
    let text = |key: &str| match card.get(key)? {
        serde_json::Value::Array(names) => names.first()?.as_str(),
        name => name.as_str(),
    };
    match (text("license")?, text("license_name")) {
        ("other", Some(name)) => Some(name.to_owned()),
        (name, _) => Some(name.to_owned()),
    }
}

/// `license` of a model card that lies in the cache: the lines between the two `---` at its beginning.
pub(crate) fn licence_of_readme(text: &str) -> Option<String> {
    let front = text.strip_prefix("---")?.split("\n---").next()?;
    let value = |key: &str| {
        let line = front.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        let value = line.trim().trim_matches(['"', '\'']);
        (!value.is_empty() && value.len() <= 80).then(|| value.to_owned())
    };
    match value("license")? {
        other if other == "other" => value("license_name").or(Some(other)),
        name => Some(name),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::error::HubErrorKind;

    const COMMIT: &str = "57c216476eefef5ab752ec549e440a49ae4ae5f3";

    fn parse(value: &serde_json::Value) -> Result<RepoInfo> {
        RepoInfo::parse(value.to_string().as_bytes())
    }

    #[test]
    fn an_answer_of_the_hub_is_read() {
        let info = parse(&json!({
            "id": "a/b", "sha": COMMIT, "gated": "auto", "tags": ["license:mit"], "downloads": 3,
            "cardData": {"license": "other", "license_name": "qwen-research", "language": ["en"]},
            "siblings": [
                {"rfilename": "model.safetensors", "size": 5, "blobId": "ce013625030ba8dba906f756967f9e9ca394464a",
                 "lfs": {"sha256": "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03", "size": 6, "pointerSize": 130}},
                {"rfilename": "config.json", "size": 6, "blobId": "ce013625030ba8dba906f756967f9e9ca394464a"},
                {"rfilename": "README.md"},
            ],
        })).unwrap();
        assert_eq!((info.commit.as_str(), info.licence.as_deref()), (COMMIT, Some("qwen-research")));
        let files: Vec<_> =
            info.files.iter().map(|f| (f.name.as_str(), f.size, f.digest.is_some())).collect();
        assert_eq!(
            files,
            [
                ("README.md", None, false),
                ("config.json", Some(6), true),
                ("model.safetensors", Some(6), true)
            ]
        );
        assert!(matches!(info.files[2].digest, Some(Digest::Sha256(_))));
        let tagged = parse(&json!({"sha": COMMIT, "tags": ["license:mit"]})).unwrap();
        assert_eq!(tagged.licence.as_deref(), Some("mit"));
    }

    #[test]
    fn hostile_answers_are_refused() {
        let file = |name: &str| json!({"sha": COMMIT, "siblings": [{"rfilename": name}]});
        for name in ["../x", "/etc/passwd", "a/../../b", "C:\\x", "", "a//b", "a\0b", "..", "nul\n"] {
            assert_eq!(parse(&file(name)).unwrap_err().kind(), HubErrorKind::Answer, "{name:?}");
        }
        let twice = json!({"sha": COMMIT, "siblings": [{"rfilename": "a"}, {"rfilename": "a"}]});
        let path = json!({"sha": COMMIT, "siblings": [{"rfilename": "a", "blobId": "../../x"}]});
        for bad in [
            json!({"sha": "main"}),
            json!({"sha": "../../../../../../../../../../../../etc/"}),
            json!([]),
            twice,
            path,
        ] {
            assert_eq!(parse(&bad).unwrap_err().kind(), HubErrorKind::Answer, "{bad}");
        }
    }

    #[test]
    fn the_licence_of_a_card_is_found() {
        assert_eq!(
            licence_of_readme("---\nlanguage: en\nlicense: apache-2.0\n---\n# A"),
            Some("apache-2.0".into())
        );
        let other = "---\nlicense: other\nlicense_name: \"qwen\"\n---\nlicense: mit";
        assert_eq!(licence_of_readme(other), Some("qwen".into()));
        assert_eq!(licence_of_readme("# A\nlicense: mit"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = RepoInfo::parse(&bytes);
        }

        #[test]
        fn any_fields_are_read_or_refused(sha in "[0-9a-f]{38,42}", name in r"[a./\\]{0,8}", size in any::<Option<i64>>(),
                                          blob in "[0-9a-f]{40}|[0-9a-z./]{0,70}", lfs in any::<bool>()) {
            let mut file = json!({"rfilename": name, "size": size, "blobId": blob});
            if lfs {
                file["lfs"] = json!({"oid": blob, "size": size});
            }
            if let Ok(info) = parse(&json!({"sha": sha, "siblings": [file]})) {
                prop_assert_eq!(info.commit.as_str(), sha);
                prop_assert_eq!(info.files[0].name.as_str(), name);
                prop_assert_eq!(info.files[0].digest.map(|digest| digest.to_string()), Some(blob));
            }
        }

        #[test]
        fn any_card_has_a_licence_or_none(text in "(---|\n|license|: |[a-z\"]|other|_name){0,20}") {
            prop_assert!(licence_of_readme(&text).is_none_or(|name| !name.is_empty() && name.len() <= 80));
        }
    }
}
