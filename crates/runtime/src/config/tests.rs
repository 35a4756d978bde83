//! Configurations as data: which layer wins, what is refused and where it says so, what is never shown.

use std::time::Duration;

use super::{Config, Layers, LogFormat, Origin};

const FILE: &str = r#"
shards = 16
listen = "127.0.0.1:9999"

[kafka]
"bootstrap.servers" = "broker-1:9092,broker-2:9092"
sasl.password = "hunter2"

[runner]
queues = ["default", "batch"]
drainTimeout = "1m"

[log]
format = "json"
"#;

fn with_file(text: &str) -> Layers<'_> {
    Layers { file: Some(("orloj.toml", text)), ..Layers::default() }
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn nothing_given_means_the_defaults() {
    let config = Config::from_layers(&Layers::default()).expect("defaults");
    assert_eq!(config.topics_prefix, "orloj.");
    assert_eq!(config.shards.get(), 32);
    assert_eq!(config.listen.to_string(), "127.0.0.1:1410");
    assert_eq!(config.runner_lease, Duration::from_secs(15));
    assert_eq!(config.log_format, LogFormat::Text);
    assert!(config.kafka.is_empty() && config.runner_id.is_none() && config.runner_callback_url.is_none());
}

#[test]
fn a_file_sets_keys_in_any_of_tomls_spellings() {
    let config = Config::from_layers(&with_file(FILE)).expect("a good file");
    assert_eq!(config.shards.get(), 16);
    assert_eq!(config.kafka["bootstrap.servers"], "broker-1:9092,broker-2:9092");
    assert_eq!(config.kafka["sasl.password"], "hunter2");
    let queues: Vec<&str> = config.runner_queues.iter().map(|queue| queue.as_str()).collect();
    assert_eq!(queues, ["batch", "default"]);
    assert_eq!(config.runner_drain_timeout, Duration::from_secs(60));
    assert_eq!(config.origin("shards"), Some(&Origin::File { name: "orloj.toml".to_owned(), line: 2 }));
}

#[test]
fn queues_may_have_weights_and_runners_labels() {
    for text in [
        "[runner]\nqueues = \"reports, default=3,same=1\"\nlabels = \"zone=eu-1, gpu=\"",
        "[runner]\nqueues = [\"default=3\", \"reports\", \"same\"]\nlabels = [\"gpu=\", \"zone=eu-1\"]",
    ] {
        let config = Config::from_layers(&with_file(text)).expect(text);
        let queues: Vec<&str> = config.runner_queues.iter().map(|queue| queue.as_str()).collect();
        assert_eq!(queues, ["default", "reports", "same"]);
        let weights: Vec<_> =
            config.runner_queue_weights.iter().map(|(queue, weight)| (queue.as_str(), *weight)).collect();
        assert_eq!(weights, [("default", 3)]);
        let labels: Vec<_> = config.runner_labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(labels, [("gpu", ""), ("zone", "eu-1")]);
        let again = Config::from_layers(&with_file(&config.printed())).expect("readable");
        assert_eq!(again.runner_queue_weights, config.runner_queue_weights);
    }
}

#[test]
fn flag_wins_over_environment_over_file() {
    let mut layers = with_file("shards = 16\nlisten = \"127.0.0.1:1\"\ntopics.prefix = \"file.\"");
    layers.environment =
        variables(&[("ORLOJ_LISTEN", "127.0.0.1:2"), ("ORLOJ_topics_prefix", "env."), ("PATH", "/bin")]);
    layers.flags = vec![("--listen".to_owned(), "listen".to_owned(), "127.0.0.1:3".to_owned())];
    let config = Config::from_layers(&layers).expect("good layers");
    assert_eq!(config.shards.get(), 16);
    assert_eq!(config.topics_prefix, "env.");
    assert_eq!(config.listen.port(), 3);
}

#[test]
fn variables_are_taken_in_both_spellings() {
    let layers = Layers {
        environment: variables(&[
            ("ORLOJ_kafka_bootstrap_servers", "a:1"),
            ("ORLOJ_KAFKA_SECURITY_PROTOCOL", "SASL_SSL"),
            ("ORLOJ_runner_drainTimeout", "5s"),
            ("ORLOJ_RUNNER_SLOTS", "3"),
            ("ORLOJ_CLOCK_JUMPMAX", "5m"),
            ("ORLOJ_RUNNER_KAFKA_DEFAULT_TOPICS", "invoices.*,orders"),
            ("ORLOJ_RUNNER_KAFKA_OTHER_BOOTSTRAP_SERVERS", "b:1"),
            ("ORLOJ_RUNNER_KAFKA_OTHER_SASL_PASSWORD", "hunter2"),
            ("ORLOJ_SHARD", "3"),
            ("ORLOJ_SERVER", "http://x"),
            ("ORLOJ_PORT_1410_TCP_ADDR", "10.0.0.1"),
            ("ORLOJ_TEST_KAFKA", "off"),
        ]),
        ..Layers::default()
    };
    let config = Config::from_layers(&layers).expect("good variables");
    assert_eq!(config.kafka["bootstrap.servers"], "a:1");
    assert_eq!(config.kafka["security.protocol"], "SASL_SSL");
    assert_eq!((config.runner_drain_timeout.as_secs(), config.runner_slots), (5, 3));
    assert_eq!(config.clock_jump_max, Duration::from_secs(300));
    let [default, other] = ["default", "other"].map(|name| &config.runner_kafka[name]);
    assert_eq!(default.topics, ["invoices.*", "orders"]);
    assert_eq!(default.properties["bootstrap.servers"], "a:1", "the log's own cluster");
    assert_eq!((other.topics.len(), other.properties["bootstrap.servers"].as_str()), (0, "b:1"));
    assert!(config.printed().contains("runner.kafka.other.\"sasl.password\" = \"(hidden)\""), "{}", config.printed());
    assert!(!format!("{config:?}").contains("hunter2"));
    assert_eq!(config.unknown_variables, ["ORLOJ_SHARD"]);
}

#[test]
fn complaints_name_the_place_the_key_and_the_fix() {
    for (text, said) in [
        ("\nshard = 8", "orloj.toml:2: `shard` is no key; did you mean `shards`?"),
        ("[runner]\nslot = 1", "orloj.toml:2: `runner.slot` is no key; did you mean `runner.slots`?"),
        (
            "[runner]\ndrain_timeout = 1",
            "orloj.toml:2: `runner.drain_timeout` is no key; did you mean `runner.drainTimeout`?",
        ),
        ("colour = \"red\"", "orloj.toml:1: `colour` is no key"),
        ("clock.jumpMax = \"10ms\"", "orloj.toml:1: `clock.jumpMax` is `10ms`; write 1s to 86400s"),
        ("shards = 0", "orloj.toml:1: `shards` is `0`; write a number from 1 to 4096"),
        ("listen = \"1410\"", "orloj.toml:1: `listen` is `1410`, no address"),
        ("runner.lease = \"soon\"", "orloj.toml:1: `runner.lease` is `soon`, which is no duration"),
        ("runner.lease = \"1s\"", "orloj.toml:1: `runner.lease` is `1s`; write 2s to 600s"),
        ("runner.queues = [\"A B\"]", "orloj.toml:1: `runner.queues` `A B` is not a valid queue"),
        (
            "runner.queues = \"a=0\"",
            "orloj.toml:1: `runner.queues` gives `a` the weight `0`; write a whole number from 1 to 1000, as in `a=3`",
        ),
        ("runner.queues = [\"a\", \"b=1001\"]", "orloj.toml:1: `runner.queues` gives `b` the weight `1001`; write"),
        ("runner.queues = \"a=-1\"", "orloj.toml:1: `runner.queues` gives `a` the weight `-1`; write"),
        ("runner.queues = \"a=much\"", "orloj.toml:1: `runner.queues` gives `a` the weight `much`; write"),
        ("runner.queues = \"a=\"", "orloj.toml:1: `runner.queues` gives `a` the weight ``; write"),
        ("runner.queues = \"a=1,b,a\"", "orloj.toml:1: `runner.queues` names `a` twice; write it once"),
        ("runner.queues = \"=3\"", "orloj.toml:1: `runner.queues` `` is not a valid queue"),
        ("runner.labels = \"zone\"", "orloj.toml:1: `runner.labels` has `zone`; write `name=value`"),
        ("runner.labels = \"a=b,a=c\"", "orloj.toml:1: `runner.labels` names `a` twice; write it once"),
        ("runner.user = \"\"", "orloj.toml:1: `runner.user` is empty; write a value or remove it"),
        ("runner.kafka.a.topics = [\"x y\"]", "orloj.toml:1: `runner.kafka.a.topics` has `x y`; write names"),
        ("runner.kafka.a = \"x\"", "orloj.toml:1: `runner.kafka.a` is no key"),
        (
            "runner.callbackUrl = \"orloj:1410\"",
            "orloj.toml:1: `runner.callbackUrl` is `orloj:1410`, which begins with neither",
        ),
        (
            "runner.callbackUrl = \"https:///a\"",
            "orloj.toml:1: `runner.callbackUrl` is `https:///a`, which names no host",
        ),
        (
            "runner.callbackUrl = \"http://a/?b\"",
            "orloj.toml:1: `runner.callbackUrl` is `http://a/?b`, which holds a user",
        ),
        ("log.format = \"xml\"", "orloj.toml:1: `log.format` is `xml`; write `text` or `json`"),
        ("otel.endpoint = \"http://x\"", "orloj.toml:1: `otel.endpoint` is not available in this version"),
        ("shards = 8\n\nshards = 9", "orloj.toml:3: duplicate key"),
        ("shards = [1]", "orloj.toml:1: `shards` takes a text"),
        ("shards =", "orloj.toml:1: "),
    ] {
        let error = Config::from_layers(&with_file(text)).expect_err(text).to_string();
        assert!(error.starts_with(said), "{text:?}: {error}");
    }
    let layers =
        Layers { flags: vec![("--set shard".to_owned(), "shard".to_owned(), "8".to_owned())], ..Layers::default() };
    assert!(Config::from_layers(&layers).is_err());
}

#[test]
fn every_complaint_comes_at_once() {
    let text = "shards = 0\nlog.format = \"xml\"\nrunner.kafka.a.topics = \"x y\"\nrunner.kafka.b.topics = \"/\"";
    let error = Config::from_layers(&with_file(text)).expect_err("four complaints");
    assert_eq!(error.0.len(), 4);
}

#[test]
fn secrets_are_never_shown() {
    let config = Config::from_layers(&with_file(FILE)).expect("a good file");
    for shown in [config.printed(), format!("{config:?}"), format!("{config:#?}")] {
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("broker-1:9092"), "{shown}");
    }
}

#[test]
fn what_is_printed_can_be_read_again() {
    let config = Config::from_layers(&with_file(FILE)).expect("a good file");
    let printed = config.printed();
    let again = Config::from_layers(&with_file(&printed)).expect("readable");
    assert_eq!(again.shards, config.shards);
    assert_eq!(again.kafka["bootstrap.servers"], config.kafka["bootstrap.servers"]);
    assert!(printed.contains("# orloj.toml:2"), "{printed}");
}
