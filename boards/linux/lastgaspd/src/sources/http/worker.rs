//! Turns the bodies of requests into batches, and the answers of the writer into responses, on a thread of its own: so
//! that waiting for a parcel or for the medium holds up no connection.
//!
//! Invariants: every job gets exactly one response; what a compressed body becomes is bounded while it is unpacked; the
//! source's end of the queue is dropped when there are no more jobs, so that a stop can make the last batches durable,
//! and their answers still arrive.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, select, unbounded};
use lastgasp_core::node::{Class, Refused};

use super::ClassOf;
use super::ingest::{BadRequest, ingest};
use super::response::Response;
use crate::clock::Clock;
use crate::parcel::{Answer, Parcel, Reply};
use crate::queue::{Intake, NoParcel};
use crate::sources::status::SourceStatus;

/// The whole body of a request.
pub(super) struct Job {
    /// Whose it is.
    pub(super) token: u64,
    pub(super) body: Vec<u8>,
    pub(super) is_gzip: bool,
}

/// A response to a job.
pub(super) struct Done {
    pub(super) token: u64,
    pub(super) response: Response,
}

/// Where responses go, and what wakes up who waits for them.
#[derive(Clone)]
pub(super) struct Bell {
    pub(super) done: Sender<Done>,
    pub(super) wake: Arc<OwnedFd>,
}

impl Bell {
    pub(super) fn ring(&self, token: u64, response: Response) {
        let _ = self.done.send(Done { token, response });
        // Full means that it was rung often enough.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }
}

pub(super) struct Worker<E> {
    pub(super) intake: Intake<E>,
    pub(super) clock: Clock,
    pub(super) record_bytes_max: usize,
    pub(super) max_request: usize,
    pub(super) class_of: ClassOf,
    pub(super) status: Arc<SourceStatus>,
    pub(super) bell: Bell,
}

impl<E> Worker<E> {
    /// Works until there are no more jobs, and all of them are answered.
    pub(super) fn run(self, jobs: &Receiver<Job>) {
        let (to, answers) = unbounded();
        loop {
            select! {
                recv(jobs) -> job => match job {
                    Ok(job) => self.work(job, &to),
                    Err(_) => break,
                },
                recv(answers) -> answer => if let Ok((token, answer)) = answer {
                    self.bell.ring(token, response(answer));
                },
            }
        }
        let Self { intake, bell, .. } = self;
        drop((intake, to));
        // Ends when the last batch that somebody waits for is answered, or gone.
        for (token, answer) in answers {
            bell.ring(token, response(answer));
        }
    }

    fn work(&self, job: Job, to: &Sender<(u64, Answer)>) {
        let token = job.token;
        if let Err(response) = self.hand_over(job, to) {
            if response.status == 400 {
                self.status.erred();
            }
            self.bell.ring(token, response);
        }
    }

    fn hand_over(&self, job: Job, to: &Sender<(u64, Answer)>) -> Result<(), Response> {
        let body = if job.is_gzip { unpack(&job.body, self.max_request)? } else { job.body };
        let mut parcel = self.intake.parcel_or_stall().map_err(|why| match why {
            NoParcel::Stalled => Response::error(503, "the store is stalled; send it again", None),
            NoParcel::Closed => Response::error(503, "the node is stopping", None),
        })?;
        let taken = ingest(&body, &mut parcel, self.record_bytes_max);
        drop(body);
        let records = match taken {
            Ok(records) => records,
            Err(bad) => {
                // An empty parcel goes back to where it came from.
                parcel.clear();
                let _ = self.intake.send(parcel);
                return Err(match bad {
                    BadRequest::Wrong { line, reason } => Response::error(400, &reason, Some(line)),
                    BadRequest::TooLarge { line, reason } => Response::error(413, &reason, Some(line)),
                });
            }
        };
        parcel.end_batch(Some(Reply::new(to.clone(), job.token)));
        parcel.class = Some(self.class(&parcel));
        parcel.received_us = self.clock.now_us();
        self.status.read(records as u64);
        // If there is nobody to take it, its reply says so.
        let _ = self.intake.send(parcel);
        Ok(())
    }

    /// The class of a batch: that of its most urgent record. Somebody waits for it, so it does not wait for others,
    /// unless the configuration says so.
    fn class(&self, parcel: &Parcel) -> Class {
        let slots = parcel.batch(0).map_or(&[][..], |batch| batch.slots);
        let runs = slots.chunk_by(|a, b| (a.stream, a.severity) == (b.stream, b.severity));
        let class = |run: &[crate::parcel::Slot]| {
            let first = run.first()?;
            Some((self.class_of)(parcel.stream_name(first.stream), first.severity).unwrap_or(Class::Group))
        };
        runs.filter_map(class).min().unwrap_or(Class::Group)
    }
}

fn unpack(packed: &[u8], max: usize) -> Result<Vec<u8>, Response> {
    let mut body = Vec::new();
    let limit = (max as u64).saturating_add(1);
    let unpacked = flate2::read::MultiGzDecoder::new(packed).take(limit).read_to_end(&mut body);
    match unpacked {
        Ok(len) if len > max => {
            Err(Response::error(413, &format!("unpacked, a request may have at most {max} bytes"), None))
        }
        Ok(_) => Ok(body),
        Err(error) => Err(Response::error(400, &format!("this is no gzip: {error}"), None)),
    }
}

fn response(answer: Answer) -> Response {
    match answer {
        Answer::Durable { first_seq, last_seq } => {
            Response::ok(format!("{{\"first_seq\":{first_seq},\"last_seq\":{last_seq}}}"))
        }
        Answer::OverLimit => Response::error(429, "a stream of this request is over its rate; send it again", None),
        Answer::Refused(refused @ (Refused::TooLarge { .. } | Refused::NoRoomFor(_))) => {
            Response::error(413, &refused.to_string(), None)
        }
        Answer::Refused(refused) => Response::error(503, &refused.to_string(), None),
        Answer::Closed => Response::error(503, "the node has stopped, and may have kept this request or not", None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_small_body_that_unpacks_to_a_large_one_is_refused() {
        let pack = |bytes: &[u8]| {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            packer.write_all(bytes).unwrap();
            packer.finish().unwrap()
        };
        assert_eq!(unpack(&pack(b"hello"), 5).unwrap(), b"hello");
        assert_eq!(unpack(&[pack(b"two "), pack(b"members")].concat(), 99).unwrap(), b"two members");
        let bomb = pack(&vec![b'x'; 50 << 20]);
        assert!(bomb.len() < 100 << 10);
        assert_eq!(unpack(&bomb, 1 << 20).unwrap_err().status, 413);
        assert_eq!(unpack(b"hello", 99).unwrap_err().status, 400);
        assert_eq!(unpack(&pack(b"hello")[..8], 99).unwrap_err().status, 400);
    }
}
