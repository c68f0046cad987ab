// Player and timeline. Gradio calls this once, with `element`, `props`, `trigger` and `watch`; the state of the page comes
// as `props.value` (see timeline.py). Everything that a visitor or a model wrote becomes text, never HTML.
const root = element.querySelector(".lv");
const LANES = ["seen", "heard", "said", "unsure"];
const MODALITIES = ["visual", "audio", "speech"];
// A state that comes by another way may arrive after a newer one.
let newest = {};
let shown = {video: null, answer: null}, duration = 0, at = 0, marks = [];

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function clock(seconds) {
  const tenths = Math.round(seconds * 10), minutes = Math.floor(tenths / 600), rest = (tenths % 600) / 10;
  return `${minutes}:${rest.toFixed(1).padStart(4, "0")}`;
}

const alertBox = make("div", {class: "lv-error", role: "alert", hidden: ""});
const stageText = make("span"), stageBar = make("progress", {max: 1, "aria-label": "Progress"});
const stage = make("div", {class: "lv-stage", role: "status", "aria-live": "polite"}, stageText, stageBar);
const note = make("p", {class: "lv-note", role: "status"});
const empty = make("section", {class: "lv-empty"});
const video = make("video", {controls: "", playsinline: "", preload: "auto", "aria-label": "The video"});
const player = make("div", {class: "lv-player", hidden: ""}, video);
const title = make("div", {class: "lv-title", hidden: ""}, make("b"), make("span"),
  make("button", {type: "button", onclick: () => trigger("leave", {})}, "Choose another"));
const timeline = make("section", {class: "lv-timeline", "aria-label": "Timeline", hidden: ""});
const answer = make("section", {class: "lv-answer", "aria-label": "Answer", hidden: ""});
const offers = make("div", {class: "lv-offers", role: "group", "aria-label": "Questions to try", hidden: ""});
const legend = make("p", {class: "lv-note lv-legend", hidden: ""});
root.append(empty, alertBox, title, player, stage, note, timeline, legend, offers, answer);

const tracks = LANES.map((name) => make("div", {class: `lv-track lv-track-${name}`}));
const labels = LANES.map((name) => make("span", {class: "lv-label"}, make("i", {class: `lv-key lv-${name}`}), name));
const strips = LANES.map((name) => make("div", {class: `lv-strip lv-strip-${name}`, "aria-hidden": "true"}));
const edges = LANES.map(() => make("div", {class: "lv-edges", "aria-hidden": "true"}));
const rows = LANES.map(() => make("div", {class: "lv-rows"}));
const ruler = make("div", {class: "lv-track lv-ruler", "aria-hidden": "true"});
const playhead = make("div", {class: "lv-playhead", "aria-hidden": "true"});
timeline.append(make("span"), ruler);
LANES.forEach((name, lane) => {
  tracks[lane].append(strips[lane], edges[lane], rows[lane]);
  timeline.append(labels[lane], tracks[lane]);
});
timeline.append(playhead);
for (const track of [ruler, ...tracks]) {
  track.addEventListener("click", (event) => {
    const box = track.getBoundingClientRect();
    if (duration && !event.target.closest("button")) seek((event.clientX - box.left) / box.width * duration);
  });
}

// What there is to choose from
empty.append(make("h2", {}, "Drop a video, or try one of these"));
const cards = make("ul", {class: "lv-cards"});
(props.examples || []).forEach((example, index) => {
  const picture = example.image ? make("img", {src: example.image, alt: ""}) : make("span", {class: "lv-blank"});
  const choose = make("button", {type: "button", onclick: () => trigger("example", {index})},
    picture, make("span", {}, example.name), make("small", {}, example.length));
  cards.append(make("li", {}, choose));
});
empty.append(cards, make("p", {class: "lv-note"},
  "Then ask: find an event, list all of them, describe a part, or put a question of your own."));

// A file that is dropped anywhere on the left goes the way of the form on the right.
const holdsFiles = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
root.addEventListener("dragover", (event) => {
  if (!holdsFiles(event)) return;
  event.preventDefault();
  root.classList.add("lv-over");
});
root.addEventListener("dragleave", (event) => {
  if (!root.contains(event.relatedTarget)) root.classList.remove("lv-over");
});
root.addEventListener("drop", (event) => {
  if (!holdsFiles(event)) return;
  event.preventDefault();
  root.classList.remove("lv-over");
  const input = document.querySelector("#lv-file input[type=file]"), [file] = event.dataTransfer.files;
  if (!input || !file) return;
  const one = new DataTransfer();
  one.items.add(file);
  input.files = one.files;
  input.dispatchEvent(new Event("change", {bubbles: true}));
});

// Time
function seek(seconds) {
  at = Math.min(Math.max(seconds, 0), duration);
  if (video.readyState > 0) video.currentTime = at;
  light();
}

function light() {
  timeline.style.setProperty("--at", duration ? Math.min(at / duration, 1) : 0);
  for (const {event, nodes} of marks) {
    const now = event.start <= at + 0.01 && at < event.end;
    for (const node of nodes) {
      node.classList.toggle("lv-now", now);
      if (node.classList.contains("lv-sentence")) node.toggleAttribute("aria-current", now);
    }
  }
}

function tick() {
  at = video.currentTime;
  light();
  if (!video.paused && !video.ended) requestAnimationFrame(tick);
}
video.addEventListener("play", tick);
video.addEventListener("timeupdate", () => { at = video.currentTime; light(); });
video.addEventListener("seeked", () => { at = video.currentTime; light(); });
video.addEventListener("error", () => {
  if (!video.getAttribute("src")) return;
  player.hidden = true;
  note.textContent = "This browser cannot play the file; the timeline and the answers work all the same.";
});

function drawRuler() {
  const steps = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800];
  const step = steps.find((seconds) => duration / seconds <= 8) || 3600;
  const ticks = [];
  const text = (time) => duration < 60 ? `${Number(time.toFixed(1))} s` : clock(time).replace(/\.\d$/, "");
  for (let time = 0; time < duration * 0.9; time += step) {
    ticks.push(make("span", {style: `left:${time / duration * 100}%`}, text(time)));
  }
  ticks.push(make("span", {class: "lv-last"}, text(duration)));
  ruler.replaceChildren(...ticks);
}

function drawVideo(value) {
  duration = value ? value.duration : 0;
  at = 0;
  player.hidden = timeline.hidden = title.hidden = !value;
  empty.hidden = Boolean(value);
  if (!value) { video.removeAttribute("src"); video.load(); return; }
  title.children[0].textContent = value.name;
  title.children[1].textContent = clock(duration);
  video.src = new URL(value.url, document.baseURI).href;
  player.hidden = !value.thumbnails.length && !value.peaks;
  player.classList.toggle("lv-only-sound", !value.thumbnails.length);
  strips[0].replaceChildren(...value.thumbnails.map((src) => make("img", {src, alt: ""})));
  strips[1].replaceChildren(...(value.peaks ? [wave(value.peaks)] : []));
  tracks[0].classList.toggle("lv-none", !value.thumbnails.length);
  tracks[1].classList.toggle("lv-none", !value.peaks);
  tracks[2].classList.toggle("lv-none", !value.peaks);
  MODALITIES.forEach((modality, lane) => {
    const spans = value.boundaries ? value.boundaries[modality] : [];
    edges[lane].replaceChildren(...spans.map(([start, end]) => make("i", {
      class: `lv-${LANES[lane]}`, title: `${LANES[lane]}: ${clock(start)} to ${clock(end)}`,
      style: `left:${start / duration * 100}%;width:${(end - start) / duration * 100}%`,
    })));
    edges[lane].hidden = !spans.length;
  });
  const ask = (question, index) => make("button", {type: "button", onclick: () => trigger("suggest", {index})},
    question.query || question.choice);
  offers.replaceChildren(make("span", {}, "Try"), ...value.questions.map(ask));
  drawRuler();
  light();
}

function wave(peaks) {
  const space = "http://www.w3.org/2000/svg", picture = document.createElementNS(space, "svg");
  picture.setAttribute("viewBox", `0 -1.05 ${Math.max(peaks.length - 1, 1)} 2.1`);
  picture.setAttribute("preserveAspectRatio", "none");
  const outline = document.createElementNS(space, "path");
  const edge = peaks.map((peak, x) => `${x},${-Math.max(peak, 0.02)}`);
  const back = peaks.map((peak, x) => `${x},${Math.max(peak, 0.02)}`).reverse();
  outline.setAttribute("d", `M${[...edge, ...back].join("L")}Z`);
  picture.append(outline);
  return picture;
}

// The answer
function words(event) {
  return event.lanes.map((modality) => LANES[MODALITIES.indexOf(modality)]);
}

function drawAnswer(value) {
  const focused = [...root.querySelectorAll("[data-event]")].indexOf(document.activeElement);
  answer.hidden = !value;
  marks = (value ? value.events : []).map((event) => ({event, nodes: []}));
  drawBars();
  if (!value) { answer.replaceChildren(); return; }
  const list = make("ol", {class: "lv-sentences"});
  marks.forEach(({event, nodes}, index) => {
    const badges = words(event).map((word) => make("span", {class: `lv-badge lv-${word}`}, word));
    const sentence = make("button", {type: "button", class: "lv-sentence", "data-event": index, onclick: () => seek(event.start)},
      make("b", {}, String(index + 1)),
      make("time", {}, `${clock(event.start)} – ${clock(event.end)}`),
      make("span", {class: "lv-caption"}, event.caption),
      make("span", {class: "lv-badges"}, ...badges));
    nodes.push(sentence);
    const item = make("li", {}, sentence);
    if (event.sources?.length) {
      const lines = event.sources.flatMap(([what, text]) => [make("dt", {}, what), make("dd", {}, text)]);
      item.append(make("details", {class: "lv-sources"}, make("summary", {}, "Where this comes from"), make("dl", {}, ...lines)));
    }
    list.append(item);
  });
  const parts = [make("h2", {}, value.question)];
  if (marks.length) parts.push(list);
  else parts.push(make("p", {class: "lv-text"}, value.text || (value.done ? "The answer is empty." : "…")));
  if (shown.video?.boundaries && value.done && !value.text) {
    parts.push(make("p", {class: "lv-note"}, "Thin bars: what each modality alone was cut into. Thick ones: the events made of them."));
  }
  if (value.done && marks.length && value.text) {
    parts.push(make("details", {}, make("summary", {}, "The answer as written"), make("pre", {}, value.text)));
  }
  if (value.files.length) {
    const links = value.files.map((file) => make("a", {
      class: "lv-save", download: file.name, role: "button",
      href: URL.createObjectURL(new Blob([file.text], {type: `${file.mime};charset=utf-8`})),
    }, file.label));
    parts.push(make("div", {class: "lv-saves", role: "group", "aria-label": "Save the events"}, make("span", {}, "Save as"), ...links));
  }
  for (const old of answer.querySelectorAll("a[href^='blob:']")) URL.revokeObjectURL(old.href);
  answer.replaceChildren(...parts);
  if (focused >= 0) root.querySelectorAll("[data-event]")[focused]?.focus();
  light();
}

function drawBars() {
  rows.forEach((row) => row.replaceChildren());
  LANES.forEach((name, lane) => {
    const ends = [];  // of the last event of each row: overlapping events lie below each other
    const here = marks.map((mark, index) => ({...mark, index}))
      .filter(({event}) => name === "unsure" ? !event.lanes.length : words(event).includes(name))
      .sort((a, b) => a.event.start - b.event.start);
    for (const {event, nodes, index} of here) {
      let row = ends.findIndex((end) => end <= event.start + 1e-6);
      if (row < 0) row = ends.push(0) - 1;
      ends[row] = event.end;
      const first = !nodes.length;  // the same event in another lane is not a stop of its own for the Tab key
      const known = words(event).join(" and ");
      const label = `Event ${index + 1}, ${clock(event.start)} to ${clock(event.end)}${known ? `, ${known}` : ""}: ${event.caption}`;
      const bar = make("button", {
        type: "button", class: `lv-bar lv-${name}`, "data-event": index,
        "aria-label": label, title: label, tabindex: first ? null : -1,
        style: `left:${event.start / duration * 100}%;width:${(event.end - event.start) / duration * 100}%;top:${row * 26}px`,
        onclick: () => seek(event.start), onkeydown: step,
      }, make("b", {}, String(index + 1)), make("span", {}, event.caption));
      nodes.push(bar);
      rows[lane].append(bar);
    }
    rows[lane].style.height = `${Math.max(ends.length, 1) * 26}px`;
    if (name === "unsure") labels[lane].hidden = tracks[lane].hidden = !here.length;
  });
  // Before it is weighed what an event rests on, that is not in doubt, only not known.
  const weighed = marks.some(({event}) => event.weights);
  labels[3].lastChild.textContent = weighed ? "unsure" : "events";
  legend.hidden = !weighed;
  legend.textContent = "An event lies in the lanes that make the model say it: seen in the pictures, heard as a sound, "
    + "said in words. Unsure: none of them alone does.";
}

function step(event) {
  const by = {ArrowRight: 1, ArrowLeft: -1}[event.key];
  if (!by) return;
  const mark = marks[Number(event.currentTarget.dataset.event) + by];
  if (!mark) return;
  event.preventDefault();
  mark.nodes[0].focus();
  seek(mark.event.start);
}

function draw() {
  if ((props.value?.serial ?? 0) >= (newest.serial ?? 0)) newest = props.value || {};
  const value = newest;
  alertBox.hidden = !value.error;
  alertBox.textContent = value.error || "";
  const doing = waiting ? {text: waiting, share: null} : value.stage;
  const begins = stage.hidden && doing;
  stage.hidden = !doing;
  const stop = document.getElementById("lv-stop");
  if (stop) stop.disabled = !doing;
  offers.hidden = Boolean(doing) || !value.video;
  if (doing) {
    stageText.textContent = doing.share === null ? doing.text : `${doing.text} ${Math.round(doing.share * 100)} %`;
    if (doing.share === null) stageBar.removeAttribute("value");
    else stageBar.value = doing.share;
  }
  const notes = [value.note, ...(value.video ? value.video.notes : [])].filter(Boolean);
  note.textContent = notes.join(" ");
  const changed = (name) => JSON.stringify(value[name] || null) !== JSON.stringify(shown[name]);
  const newVideo = changed("video"), newAnswer = changed("answer");
  shown = JSON.parse(JSON.stringify({video: value.video || null, answer: value.answer || null}));
  if (newVideo) drawVideo(shown.video);
  if (newVideo || newAnswer) drawAnswer(shown.answer);
  empty.hidden = Boolean(shown.video || doing);
  // On a narrow screen the form stands above.
  if (begins && root.getBoundingClientRect().top > innerHeight / 2) root.scrollIntoView({block: "start"});
}

// Gradio tells the place in the queue beside a component of its own, which need not be there yet.
let waiting = "";
function watchQueue() {
  const queue = document.getElementById("lv-queue");
  if (!queue || !document.getElementById("lv-stop")) { setTimeout(watchQueue, 100); return; }
  arrive();
  new MutationObserver(() => {
    const [, place, length] = queue.textContent.match(/queue: (\d+)\/(\d+)/) || [];
    const now = place ? `Waiting for your turn: place ${place} of ${length}` : "";
    if (now === waiting) return;
    waiting = now;
    draw();
  }).observe(queue, {subtree: true, childList: true, characterData: true});
}

// What a reload keeps: a secret of this tab, by which the server finds its video.
function arrive() {
  let visit = sessionStorage.getItem("longvale-visit");
  if (!visit) {
    visit = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    sessionStorage.setItem("longvale-visit", visit);
  }
  draw();
  trigger("arrive", {visit});
}

watchQueue();
watch("value", draw);
draw();
