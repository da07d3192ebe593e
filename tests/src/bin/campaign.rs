//! x
use lastgasp_hal_sim::disk::SimDisk;
use lastgasp_hal_sim::driver::explore::{Explorer, Reach};
use lastgasp_hal_sim::driver::medium::{Flash, Medium};
use lastgasp_hal_sim::driver::trace::TraceId;
use lastgasp_hal_sim::driver::workload::{Shape, by_hand, by_seed};

fn go<M: Medium>(plain: Shape, chains: Shape, args: &[String]) {
    std::panic::set_hook(Box::new(|_| ()));
    if let Some(id) = args.iter().find(|a| a.starts_with(M::NAME) && a.contains(':')) {
        let id: TraceId = id.parse().unwrap();
        let w = by_hand(plain, chains)
            .into_iter()
            .find(|w| w.name == id.workload)
            .unwrap_or_else(|| by_seed(id.workload[1..].parse().unwrap(), plain, chains));
        let (story, v) = Explorer::new(w.shape, Reach::default()).replay::<M>(&w, &id);
        for line in story {
            println!("{line}");
        }
        println!("{v:?}");
        return;
    }
    let one: u64 = std::env::var("ONE").ok().and_then(|v| v.parse().ok()).unwrap_or(0);
    let mut list = by_hand(plain, chains);
    let seeds: u64 = std::env::var("SEEDS").ok().and_then(|v| v.parse().ok()).unwrap_or(0);
    list.extend((0..seeds).map(|s| by_seed(s, plain, chains)));
    for w in list {
        let t = std::time::Instant::now();
        let reach = Reach { second_one_in: one, ..Reach::default() };
        let f = Explorer::new(w.shape, reach).explore::<M>(&w);
        println!(
            "{} {:4} {:?} cuts {:6} second {:6} rep {:6} mounts {:7} ops {:7} in {:.2?} ({:.0} mounts/s) {}",
            M::NAME,
            w.name,
            f.broken,
            f.cuts,
            f.second_cuts,
            f.repeated,
            f.tally.mounts,
            f.tally.operations,
            t.elapsed(),
            f.tally.mounts as f64 / t.elapsed().as_secs_f64(),
            w.about
        );
        for (id, v) in f.violations.iter().filter(|(_, v)| std::env::var("EV").is_ok() || v.clause() != "events") {
            println!("   {id} {v}");
        }
    }
}
fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.iter().any(|a| a.starts_with("disk")) {
        go::<SimDisk>(Shape::disk(), Shape::disk_chains(), &args);
    }
    if args.iter().any(|a| a.starts_with("nor")) {
        go::<Flash>(Shape::nor(), Shape::nor_chains(), &args);
    }
}
