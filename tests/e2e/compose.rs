//! `docker-compose.yml` and `Dockerfile` where no engine is at hand: every image tag, port, variable, key and
//! command that they use must exist in the code or be one that the project tests with.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use orloj_runtime::config::{Config, Layers};
use orloj_tests::process::run;

fn read(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    fs::read_to_string(root.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn version(of: &str) -> String {
    let manifest = read(of);
    let line = manifest.lines().find(|line| line.trim_start().starts_with("version = ")).expect("a version");
    line.split('"').nth(1).expect("quoted").to_owned()
}

#[test]
fn images_are_of_the_versions_that_are_tested() {
    let compose = read("docker-compose.yml");
    let images: BTreeSet<&str> = compose.lines().filter_map(|line| line.trim().strip_prefix("image: ")).collect();
    let kafka = read("tests/kafka/pom.xml");
    let broker = images.iter().find_map(|image| image.strip_prefix("apache/kafka:")).expect("a broker");
    assert!(kafka.contains(&format!(">{broker}<")), "tests/kafka/pom.xml brings another Kafka than {broker}");
    let own = format!("orloj:{}", version("Cargo.toml"));
    assert_eq!(images, BTreeSet::from([own.as_str(), &format!("apache/kafka:{broker}")]));
    let dockerfile = read("Dockerfile");
    let rust = dockerfile.lines().find_map(|line| line.strip_prefix("FROM rust:")).expect("a toolchain");
    let toolchain: Vec<u32> = rust.split(['.', '-']).take(2).map(|part| part.parse().expect("a number")).collect();
    let manifest = read("Cargo.toml");
    let wanted = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).expect("rust-version");
    let wanted: Vec<u32> = wanted.trim_matches('"').split('.').map(|part| part.parse().expect("a number")).collect();
    assert!(toolchain >= wanted, "the image builds with Rust {rust}, Cargo.toml wants {wanted:?}");
}

#[test]
fn variables_are_keys_of_the_configuration() {
    let compose = read("docker-compose.yml");
    let mut environment = Vec::new();
    for line in compose.lines().map(str::trim).filter(|line| line.starts_with("ORLOJ_")) {
        let (name, value) = line.split_once(": ").expect("NAME: value");
        environment.push((name.to_owned(), value.trim_matches('"').to_owned()));
    }
    let dockerfile = read("Dockerfile");
    for line in dockerfile.lines().filter_map(|line| line.strip_prefix("ENV ")) {
        let (name, value) = line.split_once('=').expect("NAME=value");
        environment.push((name.to_owned(), value.to_owned()));
    }
    assert!(environment.len() >= 5, "{environment:?}");
    let layers = Layers { defaults: Vec::new(), file: None, environment, flags: Vec::new() };
    let config = Config::from_layers(&layers).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.unknown_variables, Vec::<String>::new());
    assert_eq!(config.kafka.get("bootstrap.servers").map(String::as_str), Some("kafka:9092"));
}

#[test]
fn commands_exist_and_ports_are_the_default_ones_on_loopback() {
    let compose = read("docker-compose.yml");
    let mut commands = 0;
    for line in compose.lines().filter_map(|line| line.trim().strip_prefix("command: ")) {
        let words: Vec<String> =
            line.trim_matches(['[', ']']).split(", ").map(|word| word.trim_matches('"').to_owned()).collect();
        let mut arguments: Vec<&str> = words.iter().map(String::as_str).collect();
        arguments.push("--help");
        let output = run(&arguments);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        commands += 1;
    }
    assert_eq!(commands, 5);
    let layers = Layers { defaults: Vec::new(), file: None, environment: Vec::new(), flags: Vec::new() };
    let port = Config::from_layers(&layers).expect("defaults").listen.port();
    let published: Vec<&str> =
        compose.lines().map(str::trim).filter(|line| line.starts_with("- \"") && line.contains(':')).collect();
    assert_eq!(published, [format!("- \"127.0.0.1:{port}:{port}\"")], "published off loopback");
    for listen in compose.lines().filter(|line| line.contains("--listen")) {
        assert!(listen.contains(&format!(":{port}\"")), "{listen}");
    }
    assert!(compose.contains(&format!("/dev/tcp/127.0.0.1/{port}")) && compose.contains("/readyz"));
    let parsed: Result<serde_json::Value, _> = serde_saphyr::from_str(&compose);
    assert!(parsed.is_ok(), "{parsed:?}");
}
