use super::*;

fn strict(text: &str) -> Result<Loaded, String> {
    parse(text, "config.yaml", Mode::Serve).map_err(|error| error.to_string())
}

/// The errors of a text that stands under `blobserve:`.
fn errors_within(text: &str) -> String {
    let indented: String = text.lines().map(|line| format!("  {line}\n")).collect();
    strict(&format!("blobserve:\n{indented}"))
        .err()
        .unwrap_or_default()
}

#[test]
fn the_defaults_are_those_of_the_behaviour_and_differ_by_mode_as_it_says() {
    let serve = strict("").unwrap().config;
    let expected = Config {
        mode: Mode::Serve,
        listen: vec!["127.0.0.1:8080".parse().unwrap()],
        timeout: None,
        repos: BTreeMap::new(),
        allow_any_repo: false,
        blob_space: BlobSpaceConfig {
            location: "/var/cache/blobserve".into(),
            max_size_bytes: 0,
            keep_compressed_bytes: 0,
        },
        docker_auth: None,
        prometheus_addr: None,
        readiness_probe_addr: None,
        workers: 10,
        workers_per_registry: 4,
        platform: Platform {
            os: "linux".into(),
            architecture: "amd64".into(),
            variant: None,
            os_version: None,
        },
        tag_ttl: Duration::from_secs(60),
        stale_if_error: Duration::from_secs(86_400),
        drain_delay: Duration::from_secs(5),
        readiness: Readiness::SelfOnly,
        memory_limit: units::memory_limit(Path::new("/")),
        limits: Limits {
            layer_bytes: 17_179_869_184,
            ratio: 200,
            entries: 2_000_000,
            path_bytes: 4096,
            header_bytes: 1_048_576,
            manifest_bytes: 4_194_304,
        },
        registries: BTreeMap::new(),
        allow_private: false,
        any_repo_credentials: false,
        head_any_path: false,
        listing: false,
        cache: CacheConfig::default(),
        hosts: BTreeMap::new(),
        origins: None,
        encodings: Encodings::All,
        tls: None,
        access_log: None,
        repr_digest: false,
    };
    assert_eq!(serve, expected);
    let run = parse("{}", "config.json", Mode::Run).unwrap().config;
    let expected = Config {
        mode: Mode::Run,
        listen: vec![
            "[::]:8080".parse().unwrap(),
            "0.0.0.0:8080".parse().unwrap(),
        ],
        allow_private: true,
        any_repo_credentials: true,
        head_any_path: true,
        listing: true,
        encodings: Encodings::Off,
        ..expected
    };
    assert_eq!(run, expected);
}

/// As existing installations mount it, with what the old service put up with: keys in any
/// case, unknown ones, repeated ones, tabs.
const GITPOD: &str = "{
\t\"blobserve\": {
\t\t\"port\": 32223,
\t\t\"Port\": 32224,
\t\t\"timeout\": \"5s\",
\t\t\"repos\": {
\t\t\t\"eu.gcr.io/gitpod-core-dev/build/ide/code\": {
\t\t\t\t\"prePull\": [\"commit-1\", \"nightly\"],
\t\t\t\t\"workdir\": \"/ide\",
\t\t\t\t\"replacements\": [
\t\t\t\t\t{\"search\": \"vscode-cdn.net\", \"replacement\": \"gitpod.io\", \"path\": \"/ide/out/main.js\"},
\t\t\t\t\t{\"search\": \"gone\", \"path\": \"ide/index.html\"}
\t\t\t\t],
\t\t\t\t\"inlineStatic\": [{\"search\": \"{{WORKBENCH_WEB_BASE_URL}}\", \"replacement\": \"${ide}\"}]
\t\t\t},
\t\t\t\"eu.gcr.io/gitpod-core-dev/build/supervisor\": {\"prepull\": null, \"workdir\": \"\", \"imagePullPolicy\": 1}
\t\t},
\t\t\"allowAnyRepo\": true,
\t\t\"blobSpace\": {\"location\": \"/mnt/cache/blobserve\", \"MAXSizeBytes\": 1073741824}
\t},
\t\"dockerAuth\": \"/mnt/pull-secret/.dockerconfigjson\",
\t\"PProfAddr\": \":6060\",
\t\"prometheusAddr\": \"127.0.0.1:9500\",
\t\"readinessProbeAddr\": \":8086\",
\t\"tracing\": {\"on\": [true]}
}
";

#[test]
fn a_file_of_an_existing_installation_is_taken_as_it_is() {
    let loaded = parse(GITPOD, "/mnt/config/config.json", Mode::Run)
        .unwrap_or_else(|error| panic!("{error}"));
    let config = loaded.config;
    assert_eq!(
        config.listen,
        [
            "[::]:32224".parse().unwrap(),
            "0.0.0.0:32224".parse().unwrap()
        ]
    );
    assert_eq!(config.timeout, Some(Duration::from_secs(5)));
    assert!(config.allow_any_repo);
    assert_eq!(
        config.blob_space,
        BlobSpaceConfig {
            location: "/mnt/cache/blobserve".into(),
            max_size_bytes: 1 << 30,
            keep_compressed_bytes: 0,
        }
    );
    assert_eq!(
        config.docker_auth,
        Some("/mnt/pull-secret/.dockerconfigjson".into())
    );
    assert_eq!(
        config.prometheus_addr,
        Some("127.0.0.1:9500".parse().unwrap())
    );
    assert_eq!(
        config.readiness_probe_addr,
        Some("[::]:8086".parse().unwrap())
    );
    let code =
        &config.repos[&Repository::parse("eu.gcr.io/gitpod-core-dev/build/ide/code").unwrap()];
    let replacement = |path: &str, search: &str, replacement: &str| Replacement {
        path: path.into(),
        search: search.into(),
        replacement: replacement.into(),
    };
    let expected = RepoConfig {
        pre_pull: vec!["commit-1".into(), "nightly".into()],
        workdir: Some("/ide".into()),
        replacements: vec![
            replacement("/ide/out/main.js", "vscode-cdn.net", "gitpod.io"),
            replacement("ide/index.html", "gone", ""),
        ],
        inline_static: vec![InlineStatic {
            search: "{{WORKBENCH_WEB_BASE_URL}}".into(),
            replacement: "${ide}".into(),
        }],
        ..RepoConfig::default()
    };
    assert_eq!(*code, expected);
    let supervisor = Repository::parse("eu.gcr.io/gitpod-core-dev/build/supervisor").unwrap();
    assert_eq!(config.repos[&supervisor], RepoConfig::default());
    let wanted = [
        ":2: anyRepoCredentials: true by default under `run`",
        ":4: Port: repeated, it is in line 3 too",
        ":16: repos.\"eu.gcr.io/gitpod-core-dev/build/supervisor\".imagePullPolicy: unknown key",
        ":22: pprofAddr: accepted, and opens nothing",
        ":25: tracing: unknown key",
    ];
    assert_eq!(
        loaded.warnings.len(),
        wanted.len(),
        "{:#?}",
        loaded.warnings
    );
    for (warning, wanted) in loaded.warnings.iter().zip(wanted) {
        assert!(
            warning.starts_with(&format!("/mnt/config/config.json{wanted}")),
            "{warning}"
        );
    }
    let strict = parse(GITPOD, "config.json", Mode::Serve).unwrap_err();
    assert_eq!(strict.0.len(), 7, "strict reading refuses it: {strict}");
}

#[test]
fn every_error_names_line_path_value_and_next_step_and_all_are_told() {
    let text = "blobserve:\n  workers: 0\n  timeout: 30\n  repos:\n    docker.io/library/nginx:\n      prePull: [ok, \"a b\"]\n      workdri: /x\n  tagTtl: soon\n";
    let wanted = [
        "config.yaml:2: workers: 0 is not a whole number from 1 to 1024",
        "config.yaml:3: timeout: a number without unit is nanoseconds, and 30 of them are less than a millisecond: write \"30s\" for seconds",
        "config.yaml:6: repos.\"docker.io/library/nginx\".prePull[1]: \"a b\" is not a tag, write for example \"v1\"",
        "config.yaml:7: repos.\"docker.io/library/nginx\".workdri: unknown key, did you mean `workdir`?",
        "config.yaml:8: tagTtl: \"soon\" is not a duration, write for example \"5s\", \"1m30s\" or \"100ms\"",
    ];
    assert_eq!(strict(text).unwrap_err(), wanted.join("\n"));
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let repo = |line: &str| format!("repos:\n  a.b/c:\n    {line}");
    let registry = |line: &str| format!("registries:\n  a.b:\n    {line}");
    let table: &[(String, &str)] = &[
        ("port: 65536".into(), "port: 65536 is not"),
        (
            "port: \"80\"".into(),
            "port: is the text \"80\", a whole number from 0 to 65535 is expected",
        ),
        ("port: -1".into(), "port: -1 is not"),
        ("port: 80.5".into(), "port: 80.5 is not"),
        (
            "address: 80".into(),
            "address: is the number 80, a text is expected: put it in quotes",
        ),
        (
            "address: \"\"".into(),
            "address: is empty, give a value or remove the key",
        ),
        (
            "address: example.com:80".into(),
            "address: \"example.com:80\" is not an IP address",
        ),
        (
            "Workers: 1".into(),
            "Workers: unknown key, did you mean `workers`?",
        ),
        (
            "workers: 2\nworkers: 3".into(),
            "workers: repeated, it is in line 2 too",
        ),
        (
            "workers: 3\nworkersPerRegistry: 4".into(),
            "workersPerRegistry: 4 is more than `workers` (3)",
        ),
        (
            "workersPerRegistry: 0".into(),
            "workersPerRegistry: 0 is not",
        ),
        (
            "zzz: 1".into(),
            "zzz: unknown key, known here: address, port",
        ),
        (
            "allowAnyRepo: yes".into(),
            "allowAnyRepo: is the text \"yes\", true or false is expected",
        ),
        (
            "platform: amd64".into(),
            "platform: \"amd64\" is not a platform",
        ),
        (
            "readiness: always".into(),
            "readiness: \"always\" is not known, write `self` or `registry`",
        ),
        (
            "encodings: gzip".into(),
            "encodings: \"gzip\" is not known, write `off`, `sidecars` or `all`",
        ),
        ("drainDelay: -1s".into(), "drainDelay: \"-1s\" is negative"),
        (
            "drainDelay: 10us".into(),
            "drainDelay: \"10us\" is less than a millisecond",
        ),
        ("memoryLimit: 0".into(), "memoryLimit: 0 is too small"),
        (
            "memoryLimit: 1GB".into(),
            "memoryLimit: \"1GB\" is not a size",
        ),
        (
            "limits: {layerBytes: 0}".into(),
            "limits.layerBytes: 0 is too small",
        ),
        ("limits: {ratio: 0}".into(), "limits.ratio: 0 is not"),
        (
            "limits: {entires: 1}".into(),
            "limits.entires: unknown key, did you mean `entries`?",
        ),
        (
            "limits: 5".into(),
            "limits: is the number 5, a map is expected",
        ),
        (
            "blobSpace: {maxSizeBytes: 1GiB, keepCompressedBytes: 2GiB}".into(),
            "blobSpace.keepCompressedBytes: 2147483648 is more than `maxSizeBytes` (1073741824)",
        ),
        (
            "blobSpace: {maxSizeBytes: -5}".into(),
            "blobSpace.maxSizeBytes: \"-5\" is not a size",
        ),
        (
            "blobSpace: {location: \"a\\0b\"}".into(),
            "blobSpace.location: \"a\\0b\" is not a path",
        ),
        (
            "registries: [a.b]".into(),
            "registries: is a list, a map is expected",
        ),
        (
            "registries: {https://a.b: {}}".into(),
            "registries.\"https://a.b\": is not a registry's host",
        ),
        (
            "registries: {a: {}}".into(),
            "registries.a: is not a registry's host",
        ),
        (
            "registries:\n  a.b: {}\n  A.b: {}".into(),
            "registries.\"A.b\": repeated, it is in line 3 too",
        ),
        (
            registry("mirrors: [https://m.example]"),
            "registries.\"a.b\".mirrors[0]: \"https://m.example\" is not a host",
        ),
        (
            registry("tokenHosts: a.b"),
            "registries.\"a.b\".tokenHosts: is the text \"a.b\", a list is expected",
        ),
        (
            registry("layout: x\n    plainHttp: true"),
            "registries.\"a.b\".layout: a layout is read without a network",
        ),
        (
            registry("archive: x.tar\n    mirrors: [m.example]"),
            "registries.\"a.b\".archive: an archive is read without a network",
        ),
        (
            registry("archive: x.tar\n    layout: x"),
            "registries.\"a.b\".archive: a host has one source",
        ),
        (
            registry("mirrorTags: true"),
            "registries.\"a.b\".mirrorTags: there are no `mirrors`",
        ),
        (
            registry("ca: x\n    plainHttp: true"),
            "registries.\"a.b\".ca: plain HTTP has no certificates",
        ),
        (
            "repos: {nginx: {}}".into(),
            "repos.nginx: is not a repository's name",
        ),
        (
            "repos: {\"a.b/c:1\": {}}".into(),
            "repos.\"a.b/c:1\": is not a repository's name",
        ),
        (
            "repos:\n  docker.io/nginx: {}\n  docker.io/library/nginx: {}".into(),
            "repos.\"docker.io/library/nginx\": repeated, it is in line 3 too",
        ),
        (
            repo("prePull: [1.20]"),
            "prePull[0]: is the number 1.20, a text is expected: put it in quotes",
        ),
        (
            repo("prePull: v1"),
            "prePull: is the text \"v1\", a list is expected",
        ),
        (repo("workdir: ../x"), "workdir: \"../x\" leaves the image"),
        (
            repo("replacements: [{search: a, replacement: b}]"),
            "replacements[0].path: is missing",
        ),
        (
            repo("replacements: [{path: x}]"),
            "replacements[0].search: is missing",
        ),
        (
            repo("replacements: [{path: x, search: \"\"}]"),
            "replacements[0].search: is empty",
        ),
        (
            repo("replacements: [{path: a/../../b, search: x}]"),
            "replacements[0].path: \"a/../../b\" leaves the image",
        ),
        (
            repo("replacements: [{path: /, search: x}]"),
            "replacements[0].path: is empty",
        ),
        (
            repo("inlineStatic: [{search: \"\"}]"),
            "inlineStatic[0].search: is empty",
        ),
        (
            repo("immutableTags: [\"[\"]"),
            "immutableTags[0]: \"[\" is not a glob",
        ),
        (repo("retain: [\"[\"]"), "retain[0]: \"[\" is not a glob"),
        (repo("immutableTags: [\"\"]"), "immutableTags[0]: is empty"),
        (
            repo("listing: 1"),
            "listing: is the number 1, true or false is expected",
        ),
    ];
    for (text, wanted) in table {
        let errors = errors_within(text);
        assert!(
            errors.lines().count() == 1 && errors.contains(wanted),
            "{text}\n  says {errors:?}\n  not {wanted}"
        );
    }
}

#[test]
fn a_key_in_the_wrong_place_is_told_its_place() {
    let error = strict("port: 80\n").unwrap_err();
    assert_eq!(
        error,
        "config.yaml:1: port: unknown key, it belongs under `blobserve`"
    );
    let twice = strict("dockerAuth: a\nblobserve:\n  dockerAuth: b\n").unwrap_err();
    assert!(
        twice.starts_with("config.yaml:3: dockerAuth: repeated, it is in line 1 too"),
        "{twice}"
    );
    for text in [
        "prometheusAddr: :9500\n",
        "blobserve:\n  prometheusAddr: :9500\n",
    ] {
        assert_eq!(
            strict(text).unwrap().config.prometheus_addr,
            Some("127.0.0.1:9500".parse().unwrap()),
            "{text}"
        );
    }
}

#[test]
fn every_key_reaches_its_field() {
    let text = "
readinessProbeAddr: 127.0.0.1:1
blobserve:
  address: '[::1]:7'
  port: 9
  timeout: 0
  workers: 3
  platform: linux/arm/v7
  tagTtl: 0
  staleIfError: 1h
  drainDelay: 2s
  readiness: registry
  memoryLimit: 128MiB
  limits: {layerBytes: 1GiB, ratio: 2, entries: 3, pathBytes: 4, headerBytes: 5KiB, manifestBytes: 6}
  registries:
    Index.docker.io:
      mirrors: ['Mirror.example:5000', '[::1]:5000']
      mirrorTags: true
      tokenHosts: [auth.docker.io]
      ca: certs/ca.pem
    demo.localhost: {layout: demo/layout}
    saved.localhost: {archive: saved.tar}
    LOCALHOST:5000: {plainHttp: true}
  repos:
    a.b/c:
    docker.io/nginx: {immutableTags: ['v*', '[0-9].{0,1}'], retain: ['v*'], listing: true, encodings: sidecars}
  allowPrivate: true
  anyRepoCredentials: true
  headAnyPath: true
  listing: true
  encodings: off
  blobSpace: {location: cache, keepCompressedBytes: 1KiB}
";
    let Loaded { config, warnings } =
        parse(text, "/etc/b/config.yaml", Mode::Serve).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(
        config.listen,
        ["[::1]:7".parse().unwrap()],
        "an address goes before a port"
    );
    assert_eq!((config.timeout, config.tag_ttl), (None, Duration::ZERO));
    assert_eq!((config.workers, config.workers_per_registry), (3, 3));
    assert_eq!(config.platform.variant.as_deref(), Some("v7"));
    assert_eq!(
        (
            config.stale_if_error.as_secs(),
            config.drain_delay.as_secs()
        ),
        (3600, 2)
    );
    assert_eq!(
        (config.readiness, config.memory_limit),
        (Readiness::Registry, 128 << 20)
    );
    let limits = Limits {
        layer_bytes: 1 << 30,
        ratio: 2,
        entries: 3,
        path_bytes: 4,
        header_bytes: 5120,
        manifest_bytes: 6,
    };
    assert_eq!(config.limits, limits);
    let hub = RegistryConfig {
        ca: Some("/etc/b/certs/ca.pem".into()),
        token_hosts: vec!["auth.docker.io".into()],
        mirrors: vec!["mirror.example:5000".into(), "[::1]:5000".into()],
        mirror_tags: true,
        ..RegistryConfig::default()
    };
    let demo = RegistryConfig {
        layout: Some("/etc/b/demo/layout".into()),
        ..RegistryConfig::default()
    };
    let saved = RegistryConfig {
        archive: Some("/etc/b/saved.tar".into()),
        ..RegistryConfig::default()
    };
    let local = RegistryConfig {
        plain_http: true,
        ..RegistryConfig::default()
    };
    let registries = [
        ("docker.io", hub),
        ("demo.localhost", demo),
        ("saved.localhost", saved),
        ("localhost:5000", local),
    ];
    assert_eq!(
        config.registries,
        registries
            .map(|(host, config)| (host.to_owned(), config))
            .into()
    );
    let nginx = RepoConfig {
        immutable_tags: vec!["v*".into(), "[0-9].{0,1}".into()],
        retain: vec!["v*".into()],
        listing: Some(true),
        encodings: Some(Encodings::Sidecars),
        ..RepoConfig::default()
    };
    let repos = [
        ("a.b/c", RepoConfig::default()),
        ("docker.io/library/nginx", nginx),
    ];
    assert_eq!(
        config.repos,
        repos
            .map(|(name, config)| (Repository::parse(name).unwrap(), config))
            .into()
    );
    assert!(
        config.allow_private
            && config.any_repo_credentials
            && config.head_any_path
            && config.listing
            && config.encodings == Encodings::Off
    );
    assert_eq!(config.blob_space.location, PathBuf::from("/etc/b/cache"));
    assert_eq!(config.blob_space.keep_compressed_bytes, 1024);
    assert_eq!(
        config.readiness_probe_addr,
        Some("127.0.0.1:1".parse().unwrap())
    );
}

#[test]
fn the_address_of_the_command_line_goes_before_the_file() {
    let mut config = strict("blobserve: {port: 1}").unwrap().config;
    config.set_address(":2").unwrap();
    assert_eq!(config.listen, ["127.0.0.1:2".parse().unwrap()]);
    let error = config.set_address("nonsense").unwrap_err();
    assert!(
        error.starts_with("address \"nonsense\" has no port, write for example"),
        "{error}"
    );
    assert_eq!(config.listen, ["127.0.0.1:2".parse().unwrap()], "unchanged");
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.yaml");
    let error = |bytes: Option<&[u8]>| {
        if let Some(bytes) = bytes {
            std::fs::write(&path, bytes).unwrap();
        }
        load(&path, Mode::Serve).unwrap_err().to_string()
    };
    assert!(error(None).contains("config.yaml: cannot be read: No such file"));
    assert!(error(Some(b"a: 1\nb: \xff\n")).contains("config.yaml: is not UTF-8 in line 2"));
    assert!(error(Some(&vec![b'#'; 5 << 20])).contains("is larger than 4194304 bytes"));
    assert!(error(Some(b"a: [\n")).contains("config.yaml:2: not YAML"));
}
