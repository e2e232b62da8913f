/* The volume viewer of a report: NiiVue with its controls, for pages that are opened from disk.

   nnduetViewer.open(container, key, title)  shows volumes/<key>.js; resolves to the NiiVue object, or to null with a text
   nnduetViewer.close()                      empties the container and gives the graphics memory back

   A classic script, because file:// allows no modules and no fetch. Whatever users named goes through text nodes only. */
window.nnduetViewer = (() => {
  "use strict";

  // Okabe and Ito: told apart with every kind of colour vision.
  const PALETTE = [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0], [204, 121, 167]];
  const KEYS = "After a click on the picture, or with Tab: arrow keys and Page Up/Down move the cross, in 3D the arrow keys " +
    "turn the volume; the mouse wheel pages through a plane. Radiological view: the patient's right (R) is on the left.";

  // NiiVue's slice shader, except that fills are voxel-exact and that the reference is a line of constant width above them.
  // Its uniforms are those of NiiVue's own slice shader (vendor/niivue.umd.js, setCustomSliceShader).
  const shader = (linePixels) => `#version 300 es
precision highp float;
precision highp int;
uniform highp sampler3D volume, overlay;
uniform highp sampler3D drawing;
uniform highp sampler2D colormap;
uniform float overlays;
uniform float opacity;
uniform float drawOpacity;
in vec3 texPos;
out vec4 color;
bool isRim(float label, vec3 right, vec3 up, float pixels) {
  for (int x = -1; x <= 1; x++)
    for (int y = -1; y <= 1; y++)
      if (texture(drawing, texPos + pixels * (float(x) * right + float(y) * up)).r != label) return true;
  return false;
}
void main() {
  vec3 right = dFdx(texPos);
  vec3 up = dFdy(texPos);
  color = vec4(texture(volume, texPos).rgb, opacity);
  if (overlays > 0.0) {
    ivec3 size = textureSize(overlay, 0);
    vec4 fill = texelFetch(overlay, clamp(ivec3(texPos * vec3(size)), ivec3(0), size - 1), 0);
    float alpha = color.a + fill.a * (1.0 - color.a);
    if (alpha > 0.0) color = vec4(mix(color.rgb, fill.rgb, fill.a / alpha), alpha);
  }
  float label = texture(drawing, texPos).r;
  if (label == 0.0 || drawOpacity == 0.0 || !isRim(label, right, up, ${(1.5 * linePixels).toFixed(2)})) return;
  float rows = float(textureSize(colormap, 0).y);
  vec3 line = texture(colormap, vec2((label * 255.0 + 0.5) / 256.0, (rows - 0.5) / rows)).rgb;
  if (!isRim(label, right, up, ${linePixels.toFixed(2)})) line = vec3(0.0);
  color = vec4(mix(color.rgb, line, drawOpacity), max(color.a, drawOpacity));
}`;

  const scripts = new Map();
  let turn = 0; // grows with every open and close, so that a slow one notices that it came too late
  let shown = null;

  function element(tag, properties = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name.includes("-") || name === "role") made.setAttribute(name, value);
      else made[name] = value;
    }
    made.append(...children);
    return made;
  }

  function loaded(source) {
    if (!scripts.has(source)) {
      scripts.set(source, new Promise((resolve, reject) => {
        const script = element("script", { src: source, onload: resolve });
        script.onerror = () => {
          scripts.delete(source);
          reject(new Error(`${source} is missing beside this page`));
        };
        document.head.append(script);
      }));
    }
    return scripts.get(source);
  }

  function bytes(base64) {
    return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0)).buffer;
  }

  const fillColor = (index) => PALETTE[index % PALETTE.length];
  const lineColor = (index) => fillColor(index).map((part) => Math.round(0.5 * part + 127)); // lighter than its fill
  const css = (color) => `rgb(${color.join(" ")})`;

  function labelColors(labels, colorOf) {
    const colors = [[0, 0, 0], ...labels.map((label, index) => colorOf(index))];
    const [R, G, B] = [0, 1, 2].map((part) => colors.map((color) => color[part]));
    return { R, G, B, A: colors.map((color, index) => (index ? 255 : 0)), I: [0, ...labels.map((label) => label.value)] };
  }

  async function attached(canvas) {
    const nv = new window.niivue.Niivue({
      logLevel: "silent",
      loadingText: "",
      dragAndDropEnabled: false,
      dragMode: window.niivue.DRAG_MODE.none,
      isRadiologicalConvention: true,
      multiplanarShowRender: window.niivue.SHOW_RENDER.ALWAYS,
      multiplanarPadPixels: 4,
      show3Dcrosshair: true,
      crosshairWidth: 0.4,
      crosshairWidthUnit: "percent",
      crosshairColor: [0.9, 0.9, 0.9, 0.6],
    });
    await nv.attachToCanvas(canvas);
    return nv;
  }

  // The layers from bottom to top: what NiiVue holds of the case, and how each of them becomes visible or not.
  async function layers(nv, data) {
    const { NVImage } = window.niivue;
    const read = (what, options) => NVImage.loadFromUrl({ url: bytes(data.volumes[what]), name: `${what}.nii.gz`, ...options });
    const made = [];
    const add = async (what, title, opacity, options) => {
      const volume = await read(what, options);
      const index = nv.volumes.length;
      const isMask = what === "prediction";
      if (isMask) {
        volume.hdr.intent_code = 1002; // a label map: colours are looked up, not interpolated
        volume.setColormapLabel(labelColors(data.labels, fillColor));
      }
      const show = (value) => {
        if (isMask) nv.opts.atlasOutline = value; // at the rim NiiVue thins a label out unless told its opacity there
        nv.setOpacity(index, value);
      };
      nv.addVolume(volume);
      show(opacity);
      made.push({ what, title, opacity, volume, show });
    };
    await add("image", "Image", 1, { colormap: "gray" });
    if (data.volumes.evidence) await add("evidence", "Evidence", 0, { colormap: "warm", colormapNegative: "winter" });
    if (data.volumes.prediction) await add("prediction", "Prediction", 0.5, {});
    if (data.volumes.reference) {
      nv.setDrawColormap(labelColors(data.labels, lineColor));
      nv.loadDrawing(await read("reference", {}));
      nv.setDrawOpacity(1);
      made.push({ what: "reference", title: "Reference", opacity: 1, show: (value) => nv.setDrawOpacity(value) });
    }
    nv.setCustomSliceShader(shader(2 * nv.uiData.dpr));
    nv.scene.crosshairPos = nv.mm2frac(data.focus_mm);
    nv.drawScene();
    return made;
  }

  function slider(title, low, high, value, step, changed) {
    const text = () => String(Number(Number(input.value).toPrecision(4)));
    const input = element("input", { type: "range", min: low, max: high, step, value, "aria-label": title });
    const number = element("output", { textContent: text() });
    input.oninput = () => {
      changed(Number(input.value));
      number.textContent = text();
    };
    return element("label", { className: "nnduet-viewer-slider" }, element("span", { textContent: title }), input, number);
  }

  function layerControls(nv, layer) {
    let opacity = layer.opacity || 0.6; // one that is hidden at first appears when its box is checked
    const box = element("input", { type: "checkbox", checked: layer.opacity > 0 });
    const update = () => layer.show(box.checked ? opacity : 0);
    box.onchange = update;
    const controls = [
      element("label", { className: "nnduet-viewer-box" }, box, "Show"),
      slider("Opacity", 0, 1, opacity, 0.05, (value) => {
        opacity = value;
        update();
      }),
    ];
    if (layer.what === "image") controls.push(...windowControls(nv, layer.volume));
    return element("fieldset", { "data-layer": layer.what }, element("legend", { textContent: layer.title }), ...controls);
  }

  function windowControls(nv, volume) {
    const [low, high] = [volume.cal_min, volume.cal_max];
    const step = (high - low) / 200 || 1;
    const limit = (name, title, value) => slider(title, low, high, value, step, (chosen) => {
      volume[name] = chosen;
      nv.updateGLVolume();
    });
    return [limit("cal_min", "Window, low", low), limit("cal_max", "Window, high", high)];
  }

  function viewControl(nv) {
    const { AXIAL, CORONAL, SAGITTAL, MULTIPLANAR, RENDER } = window.niivue.SLICE_TYPE;
    const views = { "Three planes and 3D": MULTIPLANAR, Axial: AXIAL, Coronal: CORONAL, Sagittal: SAGITTAL, "3D": RENDER };
    const options = Object.entries(views).map(([title, value]) => element("option", { value, textContent: title }));
    const select = element("select", { "aria-label": "View" }, ...options);
    select.onchange = () => nv.setSliceType(Number(select.value));
    return element("label", { className: "nnduet-viewer-view" }, element("span", { textContent: "View" }), select);
  }

  function legend(data) {
    const swatch = (kind, color) => {
      const made = element("span", { className: `nnduet-viewer-swatch nnduet-viewer-${kind}`, "aria-hidden": "true" });
      if (color) made.style.setProperty("--label", color);
      return made;
    };
    const kinds = [];
    if (data.volumes.prediction) kinds.push(["fill", "filled: prediction"]);
    if (data.volumes.reference) kinds.push(["line", "outlined: reference"]);
    const items = kinds.map(([kind, text]) => element("li", {}, swatch(kind), text));
    data.labels.forEach((label, index) => {
      const swatches = kinds.map(([kind]) => swatch(kind, css(kind === "fill" ? fillColor(index) : lineColor(index))));
      if (kinds.length) items.push(element("li", {}, ...swatches, label.name));
    });
    const meaning = "evidence: red to yellow speaks for the class, blue to green against it";
    if (data.volumes.evidence) items.push(element("li", {}, meaning));
    return element("ul", { className: "nnduet-viewer-legend" }, ...items);
  }

  // One line that says in words what lies under the cross, for those to whom colours say little.
  function follow(nv, data, made) {
    const line = element("output", { className: "nnduet-viewer-place" });
    const nameOf = (value) => (data.labels.find((label) => label.value === value) || { name: "background" }).name;
    nv.onLocationChange = ({ vox: [x, y, z] }) => {
      const [, width, height] = nv.back.dimsRAS;
      const words = made.map((layer) => {
        if (layer.what === "reference") return `reference: ${nameOf(nv.drawBitmap[x + width * (y + height * z)])}`;
        const value = layer.volume.getValue(x, y, z);
        return `${layer.what}: ${layer.what === "prediction" ? nameOf(value) : Number(value.toPrecision(4))}`;
      });
      line.textContent = `Under the cross: ${words.join(", ")}`;
    };
    nv.createOnLocationChange();
    return line;
  }

  function extent(data) {
    const parts = data.cropped ? ["Cropped to the outlined region and a margin."] : [];
    const thinned = ["z", "y", "x"].map((axis, index) => [axis, data.strides[index]]).filter(([, stride]) => stride > 1);
    if (thinned.length) parts.push(`Thinned to ${thinned.map(([axis, stride]) => `1 of ${stride} along ${axis}`).join(", ")}.`);
    return parts.join(" ");
  }

  // NiiVue's own keys open dialogues and change the view behind the select's back, so they do not reach it. The wheel reaches
  // it only in focus, so that the page can be scrolled across the picture.
  function input(nv, frame) {
    const steps = { // right, up, deeper
      ArrowLeft: [-1, 0, 0],
      ArrowRight: [1, 0, 0],
      ArrowDown: [0, -1, 0],
      ArrowUp: [0, 1, 0],
      PageDown: [0, 0, -1],
      PageUp: [0, 0, 1],
    };
    const { CORONAL, SAGITTAL, RENDER } = window.niivue.SLICE_TYPE;
    const move = ([right, up, deeper]) => {
      const view = nv.opts.sliceType;
      if (view === RENDER) nv.setRenderAzimuthElevation(nv.scene.renderAzimuth + 5 * right, nv.scene.renderElevation + 5 * up);
      else if (view === CORONAL) nv.moveCrosshairInVox(-right, deeper, up); // right on the screen is the patient's left
      else if (view === SAGITTAL) nv.moveCrosshairInVox(deeper, right, up);
      else nv.moveCrosshairInVox(-right, up, deeper);
    };
    const listen = (kind, listener) => frame.addEventListener(kind, listener, { capture: true });
    listen("keyup", (event) => event.stopPropagation());
    listen("keydown", (event) => {
      if (event.key === "Escape") return; // a page may close the viewer with it
      event.stopPropagation();
      if (!(event.key in steps) || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      move(steps[event.key]);
    });
    listen("wheel", (event) => {
      if (document.activeElement !== nv.canvas) event.stopPropagation();
    });
  }

  function message(container, text) {
    container.replaceChildren(element("p", { className: "nnduet-viewer-message", textContent: text }));
    return null;
  }

  async function open(container, key, title) {
    close();
    const mine = ++turn;
    shown = { container, nv: null };
    if (!document.createElement("canvas").getContext("webgl2")) {
      return message(container, "Here this browser has no WebGL2, which the volumes need. The pictures of the report do not.");
    }
    message(container, "Loading …");
    try {
      await Promise.all([loaded("vendor/niivue.umd.js"), loaded(`volumes/${encodeURIComponent(key)}.js`)]);
      if (mine !== turn) return null;
      return await build(container, window.nnduetVolumes[key], title, mine);
    } catch (error) {
      return mine === turn ? message(container, `The volumes cannot be shown: ${error.message}`) : null;
    }
  }

  async function build(container, data, title, mine) {
    const names = { "aria-label": `Volumes of ${title}`, "aria-describedby": "nnduet-viewer-keys" };
    const canvas = element("canvas", { role: "application", ...names });
    const frame = element("div", { className: "nnduet-viewer-frame" }, canvas);
    const viewer = element("div", { className: "nnduet-viewer", role: "group", "aria-label": title }, frame);
    container.replaceChildren(viewer);
    const nv = await attached(canvas);
    const made = mine === turn ? await layers(nv, data) : [];
    if (mine !== turn) {
      release(nv);
      return null;
    }
    shown.nv = nv;
    input(nv, frame);
    const controls = made.map((layer) => layerControls(nv, layer));
    viewer.append(
      follow(nv, data, made),
      legend(data),
      element("div", { className: "nnduet-viewer-controls" }, viewControl(nv), ...controls),
      element("p", { id: "nnduet-viewer-keys", className: "nnduet-viewer-note" }, `${KEYS} ${extent(data)}`),
    );
    return nv;
  }

  function release(nv) {
    nv.cleanup();
    const lose = nv.gl.getExtension("WEBGL_lose_context"); // browsers keep few contexts and free removed ones late
    if (lose) lose.loseContext();
  }

  function close() {
    turn += 1;
    if (!shown) return;
    if (shown.nv) release(shown.nv);
    shown.container.replaceChildren();
    shown = null;
  }

  return { open, close };
})();
