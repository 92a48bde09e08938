//! The table: how a row is made and how it is proven.

use std::time::{Duration, Instant};

use trunkline_integration::wait::until;

use crate::scene::{Explained, OTHERS, Scene};

/// A fault of the wire is named within 5 s; so long on a machine that has other things to do.
const LIMIT: Duration = Duration::from_secs(20);
/// As long as it takes a node to give up on a switch that is silent, and a guest's lease to be told of.
const PATIENCE: Duration = Duration::from_secs(40);

/// Undoes a fault.
pub(crate) type Heal = Box<dyn FnOnce(&mut Scene)>;

/// A fault on real parts, and what has to be said of it.
#[derive(Clone)]
pub(crate) struct Row {
    fault: &'static str,
    way: [&'static str; 2],
    inject: fn(&mut Scene) -> Heal,
    told: Told,
    within: Duration,
    /// The other slice has nothing to do with it.
    apart: bool,
}

/// What is said. `seen`, `mend`, `says`: parts of the words.
#[derive(Clone, Copy)]
enum Told {
    /// The first broken step.
    Broken(Step),
    /// No step is broken, and this is the first of which nothing is known.
    Unknown(Step),
    /// It is right again by itself, and the journal says what was changed.
    Repaired(&'static str),
    /// It is no fault.
    Fine,
    /// Nobody can answer.
    Silence(&'static str),
}

#[derive(Clone, Copy)]
struct Step {
    kind: &'static str,
    node: &'static str,
    seen: &'static str,
    mend: &'static str,
}

impl Row {
    fn new(fault: &'static str, way: [&'static str; 2], inject: fn(&mut Scene) -> Heal, told: Told) -> Self {
        Self {
            fault,
            way,
            inject,
            told,
            within: PATIENCE,
            apart: false,
        }
    }

    /// A fault that stays until it is healed. `at`: the step's kind, and its node.
    pub(crate) fn broken(
        fault: &'static str,
        way: [&'static str; 2],
        inject: fn(&mut Scene) -> Heal,
        (kind, node): (&'static str, &'static str),
        seen: &'static str,
        mend: &'static str,
    ) -> Self {
        let step = Step { kind, node, seen, mend };
        Self::new(fault, way, inject, Told::Broken(step))
    }

    /// A fault that hides what it does.
    pub(crate) fn unknown(
        fault: &'static str,
        way: [&'static str; 2],
        inject: fn(&mut Scene) -> Heal,
        (kind, node): (&'static str, &'static str),
        seen: &'static str,
        mend: &'static str,
    ) -> Self {
        let step = Step { kind, node, seen, mend };
        Self::new(fault, way, inject, Told::Unknown(step))
    }

    /// A change that a node puts right at once; what the journal says of it.
    pub(crate) fn repaired(
        fault: &'static str,
        way: [&'static str; 2],
        inject: fn(&mut Scene) -> Heal,
        says: &'static str,
    ) -> Self {
        Self::new(fault, way, inject, Told::Repaired(says))
    }

    /// What may look like a fault and is none.
    pub(crate) fn fine(fault: &'static str, way: [&'static str; 2], inject: fn(&mut Scene) -> Heal) -> Self {
        Self::new(fault, way, inject, Told::Fine)
    }

    /// Nobody answers; what `trunkctl` says instead.
    pub(crate) fn silence(
        fault: &'static str,
        way: [&'static str; 2],
        inject: fn(&mut Scene) -> Heal,
        says: &'static str,
    ) -> Self {
        Self::new(fault, way, inject, Told::Silence(says))
    }

    /// It is on the wire, so the probe tells of it.
    pub(crate) fn on_the_wire(mut self) -> Self {
        self.within = LIMIT;
        self
    }

    /// The other slice stays right.
    pub(crate) fn of_one_slice(mut self) -> Self {
        self.apart = true;
        self
    }
}

/// Nothing is left to undo.
pub(crate) fn nothing() -> Heal {
    Box::new(|_| {})
}

/// Every row on a fleet of its own, and the table of them.
pub(crate) fn prove(rows: &[Row]) {
    let only = std::env::var("FAULTS").unwrap_or_default();
    let rows: Vec<&Row> = rows.iter().filter(|row| row.fault.contains(&only)).collect();
    let mut scene = Scene::start();
    let (mut lines, mut wrong) = (Vec::new(), Vec::new());
    for row in rows {
        let start = Instant::now();
        let before = scene.newest_event();
        let heal = (row.inject)(&mut scene);
        let injected = Instant::now();
        let told = row.judge(&scene, before);
        let named = injected.elapsed().as_secs_f64();
        if std::env::var_os("FAULTS_SHOW").is_some() {
            println!("---- {}\n{}", row.fault, scene.picture(row.way));
        }
        heal(&mut scene);
        let fine = scene.await_fine(row.fault);
        let all = start.elapsed().as_secs_f64();
        let what = match (&told, &fine) {
            (Ok(told), Ok(())) => told.clone(),
            (Err(why), _) | (_, Err(why)) => {
                wrong.push(format!("{}: {why}", row.fault));
                format!("WRONG: {why}")
            }
        };
        let line = format!("{:52}  {named:5.1} s  {all:5.1} s  {what}", row.fault);
        println!("{line}");
        lines.push(line);
        assert!(fine.is_ok(), "the fleet is not right again:\n{}", wrong.join("\n"));
    }
    println!("\n{:52}  named    healed   by", "fault");
    lines.iter().for_each(|line| println!("{line}"));
    assert!(
        wrong.is_empty(),
        "{} of {} rows:\n{}",
        wrong.len(),
        lines.len(),
        wrong.join("\n")
    );
}

impl Row {
    /// Waits for what is to be said; in short what that was.
    fn judge(&self, scene: &Scene, before: u64) -> Result<String, String> {
        let what = format!("{} to be told of", self.fault);
        let told = until(&what, self.within, || self.look(scene, before)).map_err(|error| error.to_string())?;
        if self.apart {
            let other = scene.explain(OTHERS)?;
            if other.reaches != Some(true) {
                return Err(format!("the other slice: {}", other.verdict));
            }
        }
        Ok(told)
    }

    fn look(&self, scene: &Scene, before: u64) -> Result<String, String> {
        let explained = match (scene.explain(self.way), self.told) {
            (Err(said), Told::Silence(says)) if said.contains(says) => return Ok(said.trim().to_owned()),
            (explained, _) => explained?,
        };
        let all = || format!("{}\n{:#?}", explained.verdict, explained.named());
        match self.told {
            Told::Silence(_) => Err(all()),
            Told::Fine if explained.reaches == Some(true) => Ok("no fault".to_owned()),
            Told::Fine => Err(all()),
            Told::Repaired(says) => {
                let (repairs, says) = (scene.repairs(before), scene.words(says));
                let said = repairs.iter().find(|repair| repair.contains(&says));
                said.cloned()
                    .ok_or_else(|| format!("{repairs:?}; {}", explained.verdict))
            }
            Told::Broken(step) | Told::Unknown(step) => {
                let hop = explained.named().ok_or_else(|| explained.verdict.clone())?;
                let broken = matches!(self.told, Told::Broken(_));
                let (seen, mend) = (scene.words(step.seen), scene.words(step.mend));
                let right = (hop.state != "unknown") == broken
                    && (hop.kind.as_str(), hop.node.as_deref().unwrap_or_default()) == (step.kind, step.node)
                    && hop.seen.contains(&seen)
                    && explained.verdict.contains(&seen)
                    && hop.mend.as_deref().unwrap_or_default().contains(&mend);
                if !right {
                    return Err(all());
                }
                self.is_true(scene, &explained)?;
                Ok(format!(
                    "{} {}: {}",
                    hop.kind,
                    hop.node.as_deref().unwrap_or("-"),
                    hop.seen
                ))
            }
        }
    }

    /// What the verdict says of frames is what guests see of them. A guest without a lease has no address to send from.
    fn is_true(&self, scene: &Scene, explained: &Explained) -> Result<(), String> {
        let said = &explained.verdict;
        let passes = if said.contains(" as it should") {
            true
        } else if said.contains(" does not reach ") {
            false
        } else {
            return Ok(());
        };
        let addressed = explained.named().is_none_or(|hop| hop.kind != "lease");
        match scene.frames_pass(self.way) {
            Some(pass) if addressed && pass != passes => Err(format!("frames pass: {pass}, and yet it says: {said}")),
            _ => Ok(()),
        }
    }
}
