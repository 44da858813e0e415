"use strict";
(() => {
  const at = id => document.getElementById(id);
  const data = JSON.parse(at("data").textContent);
  const KEPT = `attnshift rating ${data.run} ${data.seed} `;
  const ANSWERS = {
    single: [["yes", "Yes", ["1", "y"]], ["no", "No", ["2", "n"]], ["cannot say", "Cannot say", ["3", "c"]]],
    pair: [[0, "A", ["ArrowLeft", "a", "1"]], [1, "B", ["ArrowRight", "b", "2"]]],
  };
  const SIGNS = { ArrowLeft: "←", ArrowRight: "→" };
  let rater = "", trials = [], answers = [], halfway = false, since = 0;

  // A browser may forbid a local page to keep anything. The session then lives in the page alone.
  const keep = (name, value) => { try { localStorage.setItem(KEPT + name, value); } catch { /* see above */ } };
  const kept = name => { try { return localStorage.getItem(KEPT + name); } catch { return null; } };
  const forget = name => { try { localStorage.removeItem(KEPT + name); } catch { /* see above */ } };

  function drawnCode() {
    const letters = "ABCDEFGHJKMNPQRSTUVWXYZ23456789";
    return [...crypto.getRandomValues(new Uint32Array(6))].map(each => letters[each % letters.length]).join("");
  }

  // FNV-1a: the same code has the same order in every browser.
  function orderOf(code) {
    let hash = 0x811c9dc5;
    for (const each of code) hash = Math.imul(hash ^ each.codePointAt(0), 0x01000193) >>> 0;
    return hash % data.orders.length;
  }

  function planned(order) {
    const singles = order.labels.map(([place, arm, other]) => {
      const pair = data.pairs[place];
      return { id: pair.id, question: other ? "other" : "label", arm, name: other ? pair.other : pair.name, images: [pair.images[arm]] };
    });
    const pairs = order.pairs.map(([place, arm, cleanFirst]) => {
      const images = data.pairs[place].images;
      const shown = [images.clean, images[arm] || images.clean];
      const sides = ["clean", "changed"];
      return { id: data.pairs[place].id, question: "original", arm, images: cleanFirst ? shown : shown.reverse(), sides: cleanFirst ? sides : sides.reverse() };
    });
    return [...singles, ...pairs];
  }

  const half = () => trials.filter(each => each.question !== "original").length;

  function show(id) {
    for (const each of ["start", "ask", "between", "end"]) at(each).hidden = each !== id;
    window.scrollTo(0, 0);
  }

  function begin(code) {
    rater = code;
    trials = planned(data.orders[orderOf(rater)]);
    try { answers = JSON.parse(kept(rater)) || []; } catch { answers = []; }
    halfway = answers.length > half();
    keep("last", rater);
    proceed();
  }

  function proceed() {
    if (answers.length >= trials.length) return finish();
    if (answers.length === half() && !halfway) return show("between");
    show("ask");
    ask(trials[answers.length]);
  }

  async function ask(trial) {
    const pair = trial.question === "original";
    at("question").textContent = pair ? "Which one is the original?" : `Does this picture show: ${trial.name}?`;
    at("progress").textContent = `${answers.length + 1} of ${trials.length}`;
    at("done").style.width = `${100 * answers.length / trials.length}%`;
    at("undo").disabled = !answers.length;
    at("pictures").className = pair ? "pair" : "";
    at("beside").hidden = at("named-a").hidden = !pair;
    [at("first"), at("second")].forEach((image, side) => {
      if (!trial.images[side]) return;
      image.src = trial.images[side];
      image.dataset.blurred = pair && trial.arm === "blurred" && trial.sides[side] === "changed" ? "yes" : "";
    });
    at("answers").replaceChildren(...ANSWERS[pair ? "pair" : "single"].map(([value, text, [key]]) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = text;
      const sign = document.createElement("kbd");
      sign.textContent = SIGNS[key] || key;
      button.append(sign);
      button.addEventListener("click", () => answer(value));
      return button;
    }));
    since = 0;
    await Promise.all([at("first"), ...(pair ? [at("second")] : [])].map(image => image.decode().catch(() => null)));
    fit();
    since = performance.now();
  }

  // Whole multiples of the true size, so that every pixel stays a square.
  function fit() {
    const pair = at("pictures").className === "pair", stacked = matchMedia("(max-width: 34rem)").matches;
    const width = at("pictures").clientWidth / (pair && !stacked ? 2 : 1) - (pair && !stacked ? 12 : 0);
    const height = (innerHeight - 260) / (pair && stacked ? 2 : 1);
    const wide = at("first").naturalWidth || 1, tall = at("first").naturalHeight || 1;
    const scale = Math.max(1, Math.floor(Math.min(width / wide, height / tall)));
    const shown = Math.min(width, wide * scale);
    for (const image of [at("first"), at("second")]) {
      image.style.width = `${shown}px`;
      image.classList.toggle("crisp", shown >= wide);
      image.style.filter = image.dataset.blurred ? `blur(${shown / 40}px)` : "";
    }
    at("small").hidden = shown >= wide;
  }

  function answer(value) {
    // An image that is not shown yet cannot be judged.
    if (!since) return;
    const trial = trials[answers.length];
    answers.push({
      id: trial.id, question: trial.question, arm: trial.arm,
      answer: trial.sides ? trial.sides[value] : value,
      milliseconds: Math.round(performance.now() - since),
    });
    keep(rater, JSON.stringify(answers));
    proceed();
  }

  function undo() {
    if (!answers.length) return;
    answers.pop();
    halfway = answers.length >= half();
    keep(rater, JSON.stringify(answers));
    proceed();
  }

  function ratings() {
    return JSON.stringify({ format: data.format, run: data.run, seed: data.seed, rater, order: orderOf(rater), trials: trials.length, answers }, null, 1);
  }

  function finish() {
    const all = answers.length >= trials.length;
    at("thanks").textContent = all ? "Thank you" : "Stopped";
    at("said").textContent = `You have answered ${answers.length} of ${trials.length} questions.` + (all ? "" : " They count as they are; you may also go on.");
    at("on").hidden = all;
    at("save").disabled = at("copy").disabled = !answers.length;
    at("json").value = answers.length ? ratings() : "";
    at("told").textContent = "";
    show("end");
  }

  function save() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([ratings() + "\n"], { type: "application/json" }));
    link.download = `ratings-${rater}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    at("told").textContent = `Saved as ratings-${rater}.json, where your browser keeps downloads.`;
  }

  async function copy() {
    try {
      await navigator.clipboard.writeText(ratings());
      at("told").textContent = "Copied.";
    } catch {
      at("json").select();
      at("told").textContent = "The text is marked: copy it with Ctrl+C.";
    }
  }

  at("begin").addEventListener("submit", event => { event.preventDefault(); begin(at("rater").value.trim()); });
  at("next").addEventListener("click", () => { halfway = true; proceed(); });
  at("undo").addEventListener("click", undo);
  at("stop").addEventListener("click", finish);
  at("on").addEventListener("click", proceed);
  at("save").addEventListener("click", save);
  at("copy").addEventListener("click", copy);
  at("forget").addEventListener("click", () => {
    if (!confirm("Throw away all answers under this code?")) return;
    forget(rater);
    forget("last");
    location.reload();
  });
  [at("first"), at("second")].forEach((image, side) => image.addEventListener("click", () => {
    if (at("pictures").className === "pair") answer(side);
  }));
  addEventListener("resize", () => { if (!at("ask").hidden) fit(); });
  addEventListener("keydown", event => {
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    if (!at("between").hidden && event.key === "Enter" && event.target !== at("next")) return at("next").click();
    if (at("ask").hidden) return;
    if (event.key === "Backspace") return undo();
    const found = ANSWERS[at("pictures").className || "single"].find(([, , keys]) => keys.includes(event.key.length > 1 ? event.key : event.key.toLowerCase()));
    if (!found) return;
    event.preventDefault();
    answer(found[0]);
  });

  at("rater").value = kept("last") || drawnCode();
  show("start");
})();
