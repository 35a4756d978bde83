//! bench
#![allow(missing_docs)]
use orloj_domain::schedule::*;
use std::time::Instant;
use jiff::Timestamp;
fn main() {
    for (e, z) in [("30 2 * * MON-FRI","Europe/Berlin"),("30 2 * * MON-FRI","UTC"),("*/5 * * * *","Europe/Berlin"),("* * * * *","America/New_York"),("*/5 * * * * *","UTC"),("0 0 * * *","UTC"),("0 9 1 * *","America/New_York"),("0 0 L * *","Europe/Berlin"),("0 0 29 2 *","Europe/Berlin"),("0 2 13 * 5","Europe/Berlin"),("0 0 15W * *","Europe/Berlin"),("0 9 * * MON#2","Europe/Berlin"),("0 0 1 1 *", "Europe/Berlin"),("H H * * *", "Asia/Tokyo")] {
        let r = CronRule::parse(e, Dialect::Unix, z, Gap::Shift, Fold::First, "x").unwrap();
        let base: i64 = 1_780_000_000;
        let mut v = Vec::new();
        for i in 0..20000i64 { let t = Timestamp::from_second(base + i * 7919 % 31_536_000).unwrap(); let s = Instant::now(); let x = std::hint::black_box(r.next_after(t)); let d = s.elapsed().as_nanos(); assert!(x.is_some()); v.push(d); }
        v.sort();
        let s = Instant::now();
        for _ in 0..2000 { std::hint::black_box(CronRule::parse(e, Dialect::Unix, z, Gap::Shift, Fold::First, "x").unwrap()); }
        println!("{e:20} {z:18} p50 {} p99 {} max {}  parse {} ns", v[10000], v[19800], v[19999], s.elapsed().as_nanos()/2000);
    }
    for e in ["0 0 31 2 *","0 0 30 2 *","0 0 31W 2,4 *","0 0 L-30 2 *","* * * 31 2,4,6,9,11 * ","0 0 31 2,4,6,9,11 *", "0 0 0 31W * SUN#5", "0 0 0 L 4,6,9,11,2 SUN#5 1970-1971", "0 0 0 31W * SUN,SAT", "* * * 31W * SUN,SAT"] { for d in [Dialect::Unix, Dialect::Quartz] {
        let s = Instant::now(); let x = CronRule::parse(e, d, "Europe/Berlin", Gap::Shift, Fold::First, "x"); println!("{e:25} {d:?} {:?} {}", s.elapsed(), x.err().map_or("ok".into(), |e| e.to_string())); } }
}
