//! smoke
#[global_allocator]
static A: runtime::sys::alloc::Bump = runtime::sys::alloc::Bump::new();
use runtime::*;
fn main() {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let mut c = ContainerConfig::new("smoke", std::path::PathBuf::from(&args[0]), Payload{argv: args[1..].to_vec(), env: vec![], cwd: None});
    c.console = if std::env::var_os("CON").is_some() { Console::ReadOnly } else {Console::Pipe};
    if std::env::var_os("PRIV").is_some() { c.network = Network::Private; }
    let paths = HostPaths::default();
    let t = std::time::Instant::now();
    let p = Plan::new(&c, &HostFacts::probe(&paths).unwrap()).unwrap();
    if std::env::var_os("PLAN").is_some() { println!("{}", p); }
    eprintln!("planned {:?}", t.elapsed());
    let cg = Cgroup::create(&p.cgroup).unwrap();
    let p = Prepared::new(p).unwrap();
    eprintln!("prepared {:?}", t.elapsed());
    let p = p.launch(cg).unwrap();
    eprintln!("cloned {:?}", t.elapsed());
    let s = match p.resume() { Ok(r) => r, Err(e) => { eprintln!("ERR {e}"); std::process::exit(1) } };
    eprintln!("started {:?}", t.elapsed());
    let o = std::io::stdout();
    let a = supervisor::Attached{signals: None, output: Some(std::os::fd::AsFd::as_fd(&o)), input: None, grace: std::time::Duration::from_secs(5)};
    let e = s.run(&a, |e| eprintln!("{e:?}")).unwrap();
    eprintln!("{e:?} {:?}", t.elapsed());
}
