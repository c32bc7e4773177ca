//! Ends that only the kernel or a bug can bring: the worker's thread is traced, and stopped, or refused a call.

use std::time::Duration;

use nix::libc;
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::client::send_one_by_one;
use crate::server::{EXPORTS, Server, audited, wait_until};

/// Beyond the 30 s for which a worker may stand still, and the 2 s in which that is noticed.
const STUCK_PATIENCE: Duration = Duration::from_secs(50);

/// The worker's thread. Every call must come from the thread that attached.
struct Traced(Pid);

impl Traced {
    /// Stops the worker's thread alone.
    fn attach(server: &Server) -> Traced {
        let worker = Pid::from_raw(server.thread("worker"));
        ptrace::attach(worker).expect("a parent may trace its child");
        let traced = Traced(worker);
        assert!(matches!(traced.wait(), WaitStatus::Stopped(..)));
        traced
    }

    fn wait(&self) -> WaitStatus {
        waitpid(self.0, Some(WaitPidFlag::__WALL)).expect("it is traced by this thread")
    }

    /// The next calls of io_uring_enter find a kernel that has none. Returns at the thread's end.
    fn refuse_the_ring(&self) {
        loop {
            // One that another thread is ending cannot be told to go on; unless its end is waited for here, the process is never over.
            let _ = ptrace::syscall(self.0, None);
            if !matches!(self.wait(), WaitStatus::Stopped(..)) {
                return;
            }
            let Ok(mut registers) = ptrace::getregs(self.0) else { continue };
            // At the way in the result reads so.
            let entering = registers.rax as i64 == -i64::from(libc::ENOSYS);
            if entering && registers.orig_rax as i64 == libc::SYS_io_uring_enter {
                registers.orig_rax = u64::MAX;
                let _ = ptrace::setregs(self.0, registers);
            }
        }
    }
}

/// What was acknowledged before is counted once by the next start, which remembers it.
fn goes_on(data_dir: &std::path::Path) {
    let server = Server::start(data_dir, &EXPORTS);
    send_one_by_one(server.clicks, 20, 25);
    server.wait_for_gross(25);
    server.stop();
    audited(data_dir);
}

#[test]
fn a_worker_that_stands_still_ends_the_process_with_75_and_a_start_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    let server = Server::start(&data_dir, &EXPORTS);
    send_one_by_one(server.clicks, 0, 20);
    let traced = Traced::attach(&server);
    let reaped = std::thread::scope(|scope| {
        let ended = scope.spawn(|| server.ended_within(STUCK_PATIENCE));
        // The thread's end is told to whoever traces it, and the process is not over before.
        let reaped = traced.wait();
        let ended = ended.join().expect("it ends");
        assert_eq!(ended.code, Some(75), "{}", ended.errors);
        assert!(ended.errors.contains("no progress"), "{}", ended.errors);
        reaped
    });
    assert!(matches!(reaped, WaitStatus::Exited(..) | WaitStatus::Signaled(..)), "{reaped:?}");
    goes_on(&data_dir);
}

#[test]
fn a_kernel_that_refuses_the_ring_ends_the_process_with_70_and_a_start_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    let server = Server::start(&data_dir, &EXPORTS);
    send_one_by_one(server.clicks, 0, 20);
    wait_until("it is on disk", || server.scrape().sum("tollgate_clicks_in_flight") == 0);
    let traced = Traced::attach(&server);
    std::thread::scope(|scope| {
        let ended = scope.spawn(|| server.ended_within(STUCK_PATIENCE));
        traced.refuse_the_ring();
        let ended = ended.join().expect("it ends");
        assert_eq!(ended.code, Some(70), "{}", ended.errors);
        assert!(ended.errors.contains("io_uring"), "{}", ended.errors);
    });
    goes_on(&data_dir);
}
