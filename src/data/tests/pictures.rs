//! Image files and folders.

use std::fs;
use std::path::Path;

use image::{Rgb, RgbImage};
use msq_passes::ir::DataType;

use super::support::*;
use crate::data::{Color, DataOptions, Dataset, Filter, InputSpec, Preprocess, Preset, Resize, Size};

/// An image of one colour.
fn write(path: &Path, width: u32, height: u32, colour: [u8; 3]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    RgbImage::from_pixel(width, height, Rgb(colour)).save(path).unwrap();
}

fn with(preprocessing: Preprocess) -> DataOptions {
    DataOptions { preprocessing, ..DataOptions::default() }
}

#[test]
fn one_file_in_the_layouts_and_colours() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    write(&path, 4, 4, [10, 20, 30]);
    let values = |shape: &[usize], preprocessing| {
        first(&Dataset::open(&path, &floats("in", shape), &with(preprocessing)).unwrap(), 0)
    };
    let raw = Preprocess::default;
    let (shape, planes) = values(&[0, 3, 4, 4], raw());
    assert_eq!((shape, planes[0], planes[16], planes[32]), (vec![1, 3, 4, 4], 10.0, 20.0, 30.0));
    assert_eq!(values(&[0, 4, 4, 3], raw()).1[..4], [10.0, 20.0, 30.0, 10.0]);
    assert_eq!(values(&[3, 4, 4], raw()).0, [3, 4, 4]);
    assert_eq!(values(&[0, 0, 0, 0], raw()).0, [1, 3, 4, 4]);
    assert_eq!(values(&[0, 1, 4, 4], raw()).1[0], 18.0);
    let bgr = Preprocess { color: Some(Color::Bgr), preset: Some(Preset::ImageNet), ..raw() };
    let (_, planes) = values(&[0, 3, 4, 4], bgr);
    assert!((planes[0] - (30.0 / 255.0 - 0.406) / 0.225).abs() < 1e-5);
    let data = open(&path, &[input("in", DataType::Uint8, &[1, 3, 4, 4])]).unwrap();
    assert_eq!(
        (data.sample(0).unwrap().arrays[0].dtype(), data.describe()),
        (DataType::Uint8, "1 image from `a.png`".into())
    );
}

#[test]
fn sizes_follow_the_preset_the_model_and_the_flags() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    write(&path, 60, 40, [255, 0, 128]);
    let shape = |model: &[usize], preprocessing| {
        let data = Dataset::open(&path, &floats("in", model), &with(preprocessing));
        data.map(|d| first(&d, 0).0[2..].to_vec()).map_err(|e| e.to_string())
    };
    let raw = Preprocess::default;
    assert_eq!(shape(&[0, 3, 0, 0], raw()), Ok(vec![40, 60]));
    assert_eq!(shape(&[0, 3, 16, 24], raw()), Ok(vec![16, 24]));
    assert_eq!(shape(&[0, 3, 0, 0], Preprocess { preset: Some(Preset::Lite), ..raw() }), Ok(vec![224, 224]));
    assert_eq!(shape(&[0, 3, 32, 32], Preprocess { preset: Some(Preset::ImageNet), ..raw() }), Ok(vec![32, 32]));
    let size = Size { width: 30, height: 8 };
    assert_eq!(shape(&[0, 3, 0, 0], Preprocess { resize: Some(Resize::Exact(size)), ..raw() }), Ok(vec![8, 30]));
    assert_eq!(shape(&[0, 3, 0, 0], Preprocess { resize: Some(Resize::ShortSide(20)), ..raw() }), Ok(vec![20, 30]));
    assert_eq!(shape(&[0, 3, 0, 0], Preprocess { crop: Some(size), ..raw() }), Ok(vec![8, 30]));
    let filter = Some(Filter::Bicubic);
    assert_eq!(shape(&[0, 3, 32, 32], Preprocess { filter, ..raw() }), Ok(vec![32, 32]));
    let small = Preprocess { resize: Some(Resize::ShortSide(8)), ..raw() };
    assert!(
        shape(&[0, 3, 32, 32], small).unwrap_err().ends_with("12x8 pixels after resizing do not hold a crop of 32x32")
    );
    assert!(shape(&[0, 7], raw()).unwrap_err().contains("does not have the shape of images"));
    let gray = Preprocess { color: Some(Color::Gray), ..raw() };
    assert!(
        shape(&[0, 3, 0, 0], gray)
            .unwrap_err()
            .ends_with("has shape [1, 40, 60, 1], the model's input `in` wants [N, 3, ?, ?]")
    );
}

#[test]
fn class_folders_give_labels() {
    let folder = tempfile::tempdir().unwrap();
    for (name, red) in [("dog/1.png", 3), ("cat/10.png", 2), ("cat/9.jpg", 1), ("dog/.hidden.png", 9)] {
        write(&folder.path().join(name), 4, 4, [red, red, red]);
    }
    fs::create_dir(folder.path().join("empty")).unwrap();
    let data = open(folder.path(), &floats("in", &[0, 3, 4, 4])).unwrap();
    let found: Vec<_> = (0..data.len()).map(|i| (data.label(i).unwrap(), first(&data, i).1[0])).collect();
    assert_eq!(found, [(0, 1.0), (0, 2.0), (1, 3.0)]);
    let batch = open(folder.path(), &floats("in", &[2, 3, 4, 4])).unwrap();
    assert_eq!((batch.len(), batch.labels(0), first(&batch, 0).0), (1, Some([0, 0].as_slice()), vec![2, 3, 4, 4]));
    assert!(batch.describe().starts_with("1 × 2 images from"));
    let one = DataOptions { samples: Some(1), ..DataOptions::default() };
    assert_eq!(Dataset::open(folder.path(), &floats("in", &[0, 3, 4, 4]), &one).unwrap().len(), 1);
}

#[test]
fn flat_folders_take_labels_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    for (name, red) in [("b.png", 2), ("a.bmp", 1), ("c.webp", 3)] {
        write(&folder.path().join(name), 2, 2, [red; 3]);
    }
    let inputs = floats("in", &[0, 3, 2, 2]);
    let labels = folder.path().join("labels.csv");
    fs::write(&labels, "file,label\nc.webp,30\na.bmp,10\nb.png,20\n").unwrap();
    let options = DataOptions { labels: Some(labels.clone()), ..DataOptions::default() };
    let data = Dataset::open(folder.path(), &inputs, &options).unwrap();
    assert_eq!(
        (0..3).map(|i| (data.label(i).unwrap(), first(&data, i).1[0])).collect::<Vec<_>>(),
        [(10, 1.0), (20, 2.0), (30, 3.0)]
    );
    assert!(!open(folder.path(), &inputs).unwrap().has_labels());
    fs::write(&labels, "1\n2\n").unwrap();
    let text = message(Dataset::open(folder.path(), &inputs, &options), &folder);
    assert_eq!(text, "labels in `labels.csv`: 2 labels for 3 samples");
}

#[test]
fn bad_images_stop_or_are_skipped() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("a.png"), 3, 3, [1; 3]);
    write(&folder.path().join("c.png"), 3, 3, [3; 3]);
    fs::write(folder.path().join("b.jpg"), b"no image").unwrap();
    let whole = fs::read(folder.path().join("c.png")).unwrap();
    fs::write(folder.path().join("d.png"), &whole[..whole.len() - 20]).unwrap();
    let inputs = floats("in", &[0, 3, 3, 3]);
    assert!(message(open(folder.path(), &inputs), &folder).starts_with("`b.jpg`: unusable image: "));
    let options = DataOptions { skip_bad: true, ..DataOptions::default() };
    let data = Dataset::open(folder.path(), &inputs, &options).unwrap();
    assert_eq!((data.len(), first(&data, 1).1[0]), (2, 3.0));
    let names: Vec<_> = data.skipped().iter().map(|s| s.path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["b.jpg", "d.png"]);
    assert!(data.skipped()[0].reason.contains("b.jpg"));
    fs::remove_file(folder.path().join("b.jpg")).unwrap();
    assert!(
        message(open(folder.path(), &inputs), &folder).starts_with("`d.png`: unusable image: the image ends too early")
    );
    // Damage inside shows when the image is loaded.
    let mut damaged = whole;
    let at = damaged.windows(4).position(|name| name == b"IDAT").unwrap() + 4;
    damaged[at..at + 2].fill(0);
    fs::write(folder.path().join("d.png"), damaged).unwrap();
    assert!(message(open(folder.path(), &inputs).unwrap().sample(2), &folder).starts_with("`d.png`: unusable image: "));
    let only = tempfile::tempdir().unwrap();
    fs::write(only.path().join("b.jpg"), b"no image").unwrap();
    let text = message(Dataset::open(only.path(), &inputs, &options), &only);
    assert!(text.ends_with("none of the 1 images could be read"), "{text}");
}

/// The decoder fills what is missing with grey.
#[test]
fn a_truncated_jpeg_is_no_image() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("a.jpg"), 64, 64, [9; 3]);
    let whole = fs::read(folder.path().join("a.jpg")).unwrap();
    fs::write(folder.path().join("b.jpg"), &whole[..whole.len() - 9]).unwrap();
    let inputs = floats("in", &[0, 3, 64, 64]);
    let early = "`b.jpg`: unusable image: the image ends too early: it was not copied or written whole";
    assert_eq!(message(open(folder.path(), &inputs), &folder), early);
    let options = DataOptions { skip_bad: true, ..DataOptions::default() };
    let data = Dataset::open(folder.path(), &inputs, &options).unwrap();
    assert_eq!((data.len(), data.skipped().len()), (1, 1));
}

#[test]
fn samples_of_images_from_many_threads() {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..12 {
        write(&folder.path().join(format!("{i}.png")), 8, 6, [i; 3]);
    }
    let data = open(folder.path(), &floats("in", &[0, 3, 4, 4])).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..12).for_each(|i| assert_eq!(first(&data, i).1[5], i as f32)));
        }
    });
}

/// Ultralytics' exporter states the size of images, which free axes do not.
#[test]
fn models_state_the_size_of_their_images() {
    let stated = |size: &str| {
        let text = format!(
            "<ir_version: 8, opset_import: [\"\": 17], metadata_props: [\"imgsz\": \"{size}\"]>
             g (float[n,3,h,w] images) => (float[n,3,h,w] y) {{ y = Relu (images) }}"
        );
        let model = msq_passes::ir::import(msq_passes::ir::text::parse(&text).unwrap()).unwrap();
        InputSpec::of(&model)[0].image_size
    };
    assert_eq!(stated("[320, 416]"), Some([320, 416]));
    assert_eq!([stated("[320]"), stated("[0, 416]"), stated("320"), stated("[a, b]")], [None; 4]);
}
