// Draws the charts of a report from the values in the page, and draws them anew when the slider, the colour scheme or
// the medium changes. It asks for nothing outside the page.
"use strict";
(() => {
  const PAPER_WIDTH = 680; // pixels of an A4 or letter page between its margins
  const PLAY_SECONDS = 12; // of the whole slider
  const page = JSON.parse(document.getElementById("page-data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const paper = matchMedia("print");
  const shown = new Map(); // chart -> what the slider sets in its first trace
  let printing = false;

  // Colours are written for a light page; a dark one has another for each.
  function repaint(value, colours, isColour = false) {
    if (typeof value === "string") return (isColour && colours[value]) || value;
    if (Array.isArray(value)) return value.map((item) => repaint(item, colours, isColour));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(
      Object.entries(value).map(([name, item]) => [name, repaint(item, colours, isColour || /colou?r/i.test(name))]),
    );
  }

  function setAt(target, path, value) {
    const names = path.split(".");
    const last = names.pop();
    names.reduce((inner, name) => (inner[name] ??= {}), target)[last] = value;
  }

  function draw(name, anew = false) {
    const element = document.getElementById(name);
    const update = shown.get(name);
    element.closest("figure").classList.toggle("absent", update === null);
    if (update === null) return;
    const figure = structuredClone(page.charts[name]);
    for (const [path, value] of Object.entries(update ?? {})) setAt(figure.data[0], path, structuredClone(value));
    const { data, layout } = repaint(figure, dark.matches && !printing ? page.dark : {});
    if (anew) Plotly.purge(element); // else some charts only begin to move to their new size
    if (printing) Object.assign(layout, { autosize: false, width: PAPER_WIDTH });
    // A finger on a chart scrolls the page; a mouse may zoom, and a double click shows all again.
    layout.dragmode = matchMedia("(pointer: fine)").matches ? "zoom" : false;
    Plotly.react(element, data, layout, { responsive: true, displayModeBar: false, doubleClick: "reset" });
  }

  const drawAll = (anew) => Object.keys(page.charts).forEach((name) => draw(name, anew));

  function connect({ name, charts, frames }) {
    const input = document.getElementById(name);
    const output = document.getElementById(`${name}-label`);
    const button = document.getElementById(`${name}-play`);
    let timer = 0;
    let waiting = false;

    function note() {
      const frame = frames[Number(input.value)];
      output.textContent = frame.label;
      input.setAttribute("aria-valuetext", frame.label);
      charts.forEach((chart, index) => shown.set(chart, frame.updates[index]));
    }
    function show() {
      note();
      if (waiting) return;
      waiting = true; // however fast the slider moves, charts are drawn once a picture of the screen
      requestAnimationFrame(() => {
        waiting = false;
        charts.forEach((chart) => draw(chart));
      });
    }
    function stop() {
      clearInterval(timer);
      timer = 0;
      button.textContent = "Play";
    }
    function play() {
      if (timer) return stop();
      if (Number(input.value) === frames.length - 1) input.value = 0;
      button.textContent = "Pause";
      show();
      timer = setInterval(() => {
        input.value = Number(input.value) + 1;
        show();
        if (Number(input.value) === frames.length - 1) stop();
      }, Math.min(1000, (1000 * PLAY_SECONDS) / frames.length));
    }
    input.addEventListener("input", () => {
      stop();
      show();
    });
    button.addEventListener("click", play);
    note();
  }

  const folds = [...document.querySelectorAll("details")];
  let opened = [];
  function print(begins) {
    if (begins === printing) return;
    printing = begins;
    if (printing) opened = folds.map((fold) => fold.open);
    folds.forEach((fold, index) => (fold.open = printing || opened[index]));
    drawAll(true);
  }

  page.sliders.forEach(connect);
  drawAll(false);
  dark.addEventListener("change", () => drawAll(false));
  paper.addEventListener("change", () => print(paper.matches));
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
  document.documentElement.dataset.drawn = "true";
})();
