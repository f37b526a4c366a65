// <frame-slider>: an <img> whose frames are chosen by a range input. Without scripts the first frame is all there is.
customElements.define(
  "frame-slider",
  class extends HTMLElement {
    connectedCallback() {
      const frames = JSON.parse(this.querySelector("script").textContent);
      const image = this.querySelector("img");
      const input = this.querySelector("input");
      const output = this.querySelector("output");
      const show = () => {
        const frame = frames[input.value];
        image.src = frame.src;
        image.alt = frame.alt;
        output.textContent = frame.label;
        input.setAttribute("aria-valuetext", frame.label);
      };
      // The range input brings arrow keys, Home, End and touch; nothing here moves by itself.
      input.addEventListener("input", show);
      show();
      this.querySelector(".controls").hidden = false;
    }
  },
);
