// What a notebook keeps of a widget when JupyterLab saves it, so that it can be opened again without its kernel.

const WIDGET_STATE = "application/vnd.jupyter.widget-state+json";
const MOST_KEPT = 2_000_000; // characters of a widget; of a larger one only what it says instead is kept

const isWidgetOfOurs = ({ state }) => String(state._anywidget_id).startsWith("tinysqueeze.");

// Without its layout, which is a model of its own, and is the usual one.
function entryOf([id, { buffers, state: { layout, ...state }, ...about }]) {
  const small = JSON.stringify([buffers, state]).length <= MOST_KEPT;
  return [id, { ...about, state, ...(small && { buffers }) }];
}

const everKept = new WeakMap(); // of a notebook: our widgets by id, also those whose output is gone, for it may be put back

// A widget's `render` that also puts the widgets of ours that the notebook shows into its metadata, and takes out those
// that it no longer shows. JupyterLab and Notebook 7 would do so for all if told to in their settings; where there
// is no notebook like theirs nothing is done.
export const keeping = (render) => ({ model, el }) => {
  const free = render({ model, el });
  const manager = model.widget_manager;
  const context = manager?.context;
  if (!context?.saveState || !manager.get_state_sync) return free;
  const keep = () => {
    const shown = JSON.stringify(context.model.toJSON().cells);
    const { [WIDGET_STATE]: old, ...others } = context.model.getMetadata("widgets") ?? {};
    const before = Object.entries(old?.state ?? {});
    const now = Object.entries(manager.get_state_sync({ drop_defaults: true }).state).filter(([, one]) => isWidgetOfOurs(one));
    const ours = new Map([...everKept.get(context.model) ?? [], ...before.filter(([, one]) => isWidgetOfOurs(one)), ...now.map(entryOf)]);
    everKept.set(context.model, ours);
    const state = Object.fromEntries([...before.filter(([, one]) => !isWidgetOfOurs(one)), ...[...ours].filter(([id]) => shown.includes(id))]);
    context.model.setMetadata("widgets", { ...others, [WIDGET_STATE]: { version_major: 2, version_minor: 0, state } });
  };
  const saving = (_, phase) => phase === "started" && keep();
  context.saveState.connect(saving);
  keep(); // now, too: what a kernel that is gone when it is saved can't be asked
  return () => {
    context.saveState.disconnect(saving);
    setTimeout(() => context.isDisposed || keep()); // its output is gone, if the notebook is still there
    return free();
  };
};
