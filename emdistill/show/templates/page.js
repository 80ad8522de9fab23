// Draws the charts of a page from the values beside them, and draws them anew when the slider, the colour scheme or the
// medium changes. Without Plotly the page stays as it is, with a sentence that says so.
"use strict";
(() => {
  const PAPER_WIDTH = 680; // pixels of an A4 or letter page between its margins
  const PLAY_SECONDS = 12; // of the whole slider
  const valuesIn = (element) => JSON.parse(element.textContent);
  const darkColours = valuesIn(document.getElementById("dark"));
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const paper = matchMedia("print");
  const plots = window.Plotly ? [...document.querySelectorAll(".plot")] : [];
  const figures = new Map(plots.map((plot) => [plot, valuesIn(plot.nextElementSibling)]));
  const shown = new Map(); // plot -> what the slider sets in its first trace
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

  function draw(plot, anew = false) {
    const update = shown.get(plot);
    plot.closest("figure").classList.toggle("absent", update === null);
    if (update === null) return;
    const figure = structuredClone(figures.get(plot));
    for (const [path, value] of Object.entries(update ?? {})) setAt(figure.data[0], path, structuredClone(value));
    const { data, layout } = repaint(figure, dark.matches && !printing ? darkColours : {});
    if (anew) Plotly.purge(plot); // else some charts only begin to move to their new size
    if (printing) Object.assign(layout, { autosize: false, width: PAPER_WIDTH });
    // A finger on a chart scrolls the page; a mouse may zoom, and a double click shows all again.
    layout.dragmode = matchMedia("(pointer: fine)").matches ? "zoom" : false;
    Plotly.react(plot, data, layout, { responsive: true, displayModeBar: false, doubleClick: "reset" });
  }

  const drawAll = (anew) => plots.forEach((plot) => draw(plot, anew));

  function connect(moved) {
    const [input, output, button] = ["input", "output", "button"].map((tag) => moved.querySelector(tag));
    const frames = valuesIn(moved.querySelector(":scope > script"));
    const charts = [...moved.querySelectorAll(".plot")];
    let timer = 0;
    let waiting = false;

    function note() {
      const frame = frames[Number(input.value)];
      output.textContent = frame.label;
      input.setAttribute("aria-valuetext", frame.label);
      charts.forEach((plot, index) => shown.set(plot, frame.updates[index]));
    }
    function show() {
      note();
      if (waiting) return;
      waiting = true; // however fast the slider moves, charts are drawn once a picture of the screen
      requestAnimationFrame(() => {
        waiting = false;
        charts.forEach((plot) => draw(plot));
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

  if (window.Plotly) {
    document.documentElement.dataset.drawn = "true";
    document.getElementById("no-charts").hidden = true;
    document.querySelectorAll(".moved").forEach(connect);
  }
  drawAll(false);
  dark.addEventListener("change", () => drawAll(false));
  paper.addEventListener("change", () => print(paper.matches));
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
})();
