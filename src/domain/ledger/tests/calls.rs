//! What workers and operators ask of the bench, in a word each, and what they see.
//!
//! Owns: the calls' usual shape. Never: judges an answer. Invariant: a call whose answer needs no commit has it when it returns.

use super::*;

impl Bench {
    pub(super) fn grant(&mut self, worker: &str, max_tasks: u32) -> Vec<Lease> {
        self.grant_as(worker, max_tasks, None)
    }

    pub(super) fn grant_as(&mut self, worker: &str, max_tasks: u32, request_id: Option<&str>) -> Vec<Lease> {
        let ticket = self.ticket();
        self.apply(Command::Grant(Grant {
            ticket,
            worker: worker.into(),
            max_tasks,
            request_id: request_id.map(str::to_owned),
        }));
        match self.reply(ticket) {
            Reply::Granted(granted) => granted.into_iter().map(|granted| granted.lease).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// Sends results; the answer may have to wait.
    pub(super) fn post(&mut self, worker: &str, items: Vec<Item>) -> Ticket {
        self.post_then(worker, items, None)
    }

    pub(super) fn post_then(&mut self, worker: &str, items: Vec<Item>, then_lease: Option<u32>) -> Ticket {
        let ticket = self.ticket();
        self.apply(Command::Results(Results {
            ticket,
            worker: worker.into(),
            items,
            then_lease,
        }));
        ticket
    }

    pub(super) fn dispositions(&mut self, ticket: Ticket) -> Vec<Disposition> {
        match self.reply(ticket) {
            Reply::Results { dispositions, .. } => dispositions,
            other => panic!("{other:?}"),
        }
    }

    /// Sends results and has them committed.
    pub(super) fn report(&mut self, items: Vec<Item>) -> Vec<Disposition> {
        let ticket = self.post("w", items);
        self.dispositions(ticket)
    }

    pub(super) fn extend(&mut self, worker: &str, leases: &[Lease]) -> Vec<Option<UnixMs>> {
        self.extend_at(worker, leases, None, None)
    }

    pub(super) fn extend_at(
        &mut self,
        worker: &str,
        leases: &[Lease],
        stage: Option<&str>,
        note: Option<&str>,
    ) -> Vec<Option<UnixMs>> {
        let ticket = self.ticket();
        self.apply(Command::Extend(Extend {
            ticket,
            worker: worker.into(),
            leases: leases.iter().copied().map(Some).collect(),
            stage: stage.map(str::to_owned),
            note: note.map(Into::into),
        }));
        match self.reply(ticket) {
            Reply::Extended { extended, .. } => extended,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn release(&mut self, worker: &str, leases: &[Lease]) -> Vec<bool> {
        let ticket = self.ticket();
        self.apply(Command::Release {
            ticket,
            worker: worker.into(),
            leases: leases.iter().copied().map(Some).collect(),
        });
        match self.reply(ticket) {
            Reply::Released(released) => released,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn order(&mut self, control: Control) -> Ticket {
        let ticket = self.ticket();
        self.apply(Command::Control { ticket, control });
        ticket
    }

    pub(super) fn control(&mut self, control: Control) -> Result<(), Refusal> {
        let ticket = self.order(control);
        self.ruling(ticket)
    }

    pub(super) fn ruling(&mut self, ticket: Ticket) -> Result<(), Refusal> {
        match self.reply(ticket) {
            Reply::Control(ruling) => ruling,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn send_chunk(&mut self, tasks: u32, first_task: Option<u32>) -> Ticket {
        let ticket = self.ticket();
        self.chunks.insert(ticket, tasks);
        self.apply(Command::Append { ticket, first_task });
        ticket
    }

    pub(super) fn chunk(&mut self, ticket: Ticket) -> Result<Appended, Refusal> {
        match self.reply(ticket) {
            Reply::Appended(appended) => appended,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn state(&self) -> State {
        self.durable.record.state
    }

    /// pending, leased, retrying, succeeded, failed
    pub(super) fn counts(&mut self) -> [u32; 5] {
        let p = self.ledger.progress(self.now);
        [p.pending, p.leased, p.retrying, p.succeeded, p.failed]
    }

    pub(super) fn error_code(&self) -> Option<&str> {
        self.durable.record.error.as_ref().map(|error| error.code.as_str())
    }
}
